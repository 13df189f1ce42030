"""The OpenAPI document: every answer that is sent is in it, errors included."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from fastapi import FastAPI

from kaos_backend import errors
from kaos_backend.api.operations import PLACE
from kaos_backend.api.schemas import ErrorBody
from kaos_formats.http_api import API, API_HEADER, VERSION_HEADER

# What the front door may say, and any call that goes through to the engine.
_ALWAYS: tuple[type[errors.KaosError], ...] = (
    errors.InvalidRequest,
    errors.Unauthorized,
    errors.Forbidden,
    errors.NotAllowed,
    errors.TooManyRequests,
    errors.VersionMismatch,
    errors.RequestTimeout,
    errors.BodyTooLarge,
    errors.UriTooLong,
    errors.HeadersTooLarge,
    errors.Internal,
)
_WITH_BODY: tuple[type[errors.KaosError], ...] = (errors.UnsupportedMediaType,)
_WITH_PLACE: tuple[type[errors.KaosError], ...] = (
    errors.Busy,
    errors.EngineUnavailable,
    errors.SettingsRefused,
    errors.DiskFull,
    errors.DataLoss,
)

_HEADERS = {
    401: {"WWW-Authenticate": "How to authenticate: `Bearer`."},
    429: {"Retry-After": "Seconds after which to try again."},
    503: {"Retry-After": "Seconds after which to try again, when the backend is busy."},
}


def ends_in(*found: type[errors.KaosError]) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route that may end in these errors, besides those that any may end in."""
    by_status: dict[int, list[str]] = defaultdict(list)
    for error in found:
        by_status[error.http_status].append(error.code)
    return {status: _response(codes) for status, codes in by_status.items()}


def describe(app: FastAPI) -> None:
    """Completes ``app.openapi`` with what holds for every operation."""
    generate = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(generate())
        return app.openapi_schema

    # FastAPI's way of extending the document is to replace this method.
    app.openapi = complete  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    components = document["components"]
    for unsent in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unsent, None)
    components["schemas"]["ErrorBody"] = ErrorBody.model_json_schema(ref_template=_REF)
    components["schemas"].update(components["schemas"]["ErrorBody"].pop("$defs"))
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}]
    for item in document["paths"].values():
        for operation in item.values():
            _complete_operation(operation)
    return document


def _complete_operation(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    if "ValidationError" in str(responses.get("422")):
        del responses["422"]
    applying = _ALWAYS
    if "requestBody" in operation:
        applying += _WITH_BODY
    if operation.get(PLACE) != "none":
        applying += _WITH_PLACE
    for status, response in ends_in(*applying).items():
        known = responses.setdefault(str(status), response)
        if known is not response:
            known["description"] += ", " + response["description"]
    for status, response in responses.items():
        described = {
            VERSION_HEADER: "The version of the backend.",
            API_HEADER: "The version of the API that it speaks.",
            **_HEADERS.get(int(status), {}),
        }
        response["headers"] = {
            name: {"description": text, "required": name != "Retry-After", "schema": {"type": "string"}}
            for name, text in described.items()
        }
    operation.setdefault("parameters", []).extend(
        {
            "name": name,
            "in": "header",
            "required": False,
            "description": description,
            "schema": {"type": "string", "enum": [known]},
        }
        for name, known, description in _OF_THE_CLIENT
    )


_OF_THE_CLIENT = (
    # Not that of the client's version, which alone is refused if it is another than the backend's.
    (API_HEADER, str(API), "The version of the API that the client speaks; another one is refused."),
)

_REF = "#/components/schemas/{model}"


def _response(codes: list[str]) -> dict[str, Any]:
    return {
        "description": ", ".join(f"`{code}`" for code in codes),
        "content": {"application/json": {"schema": {"$ref": _REF.format(model="ErrorBody")}}},
    }
