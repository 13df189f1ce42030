"""From KaosErrors (and whatever else escapes) to HTTP, at one place."""

from __future__ import annotations

import json
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException

from kaos_backend import __version__
from kaos_backend.errors import (
    Busy,
    Internal,
    InvalidRequest,
    KaosError,
    MethodNotAllowed,
    SettingsRefused,
    TooManyRequests,
)
from kaos_backend.services.views import FORMAT
from kaos_formats.http_api import API, API_HEADER, VERSION_HEADER

_log = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    """Registers the handlers: every error answer has the body ``{"version", "error": {code,
    message, hint, fields}}``. With ``app.state.leave`` a backend whose settings are refused ends itself.
    """
    app.state.leave = lambda: None
    app.add_exception_handler(KaosError, _kaos_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


def body(error: KaosError) -> dict[str, Any]:
    """The JSON body of an error."""
    described = {"code": error.code, "message": error.message, "hint": error.hint, "fields": error.fields}
    return {"version": FORMAT, "error": described}


def said() -> dict[str, str]:
    """The headers of every answer: who says so."""
    return {VERSION_HEADER: __version__, API_HEADER: str(API)}


def headers(error: KaosError) -> dict[str, str]:
    """The headers that go with an error."""
    found: dict[str, str] = {}
    if error.http_status == 401:
        found["WWW-Authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        found["Allow"] = ", ".join(error.fields["allowed"])
    if isinstance(error, Busy | TooManyRequests):
        found["Retry-After"] = str(error.fields["retry_after_s"])
    return found


class _Ascii(JSONResponse):
    """An error may quote what no UTF-8 can hold."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


def _answer(error: KaosError) -> JSONResponse:
    return _Ascii(body(error), status_code=error.http_status, headers=headers(error))


async def _kaos_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, KaosError)
    if error.http_status >= 500:
        # Only a bug needs its traceback; a dead engine or a full disk says all there is to say.
        trace = error if isinstance(error, Internal) else None
        _log.error(
            "%s %s: %s: %s", request.method, request.url.path, error.code, error.message, exc_info=trace
        )
    answer = _answer(error)
    if isinstance(error, SettingsRefused):
        # Its environment stays as it is; the next one has that of whoever starts it.
        answer.background = BackgroundTask(request.app.state.leave)
    return answer


async def _validation_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = [f"{'.'.join(str(part) for part in p['loc'])}: {p['msg']}" for p in error.errors()[:5]]
    return _answer(InvalidRequest("; ".join(problems), hint="see docs/api.md for what this request takes"))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    # The framework's own; the front door lets nothing through that leads to others.
    assert isinstance(error, HTTPException)
    return _answer(InvalidRequest(f"{request.method} {request.url.path}: {error.detail}"))


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    answer = _answer(
        Internal(f"{type(error).__name__}: {error}", hint="see backend.log in the logs folder of KAOS_HOME")
    )
    # This handler runs outside of all middleware, which would have put the header.
    answer.headers.update(said())
    return answer
