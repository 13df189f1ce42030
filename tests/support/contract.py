"""The backend's OpenAPI document, as what requests and answers of tests are held against."""

from __future__ import annotations

import functools
import re
import tempfile
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from kaos_backend.api import schemas
from kaos_backend.app import create_app
from kaos_backend.services import views
from kaos_backend.settings import Settings
from kaos_formats.home import Home


@functools.cache
def document() -> dict[str, Any]:
    """The document, made once."""
    with tempfile.TemporaryDirectory() as home:
        return create_app(Settings(home=Home(Path(home)))).openapi()


def operation(method: str, path: str) -> dict[str, Any]:
    """What is documented of ``GET``, ``/v1/workspaces`` and the like; AssertionError if nothing is."""
    for template, operations in document()["paths"].items():
        if method.lower() in operations and re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path):
            found: dict[str, Any] = operations[method.lower()]
            return found
    raise AssertionError(f"the backend has no {method} {path}")


def success(method: str, path: str) -> tuple[int, str | None, type[BaseModel] | None]:
    """Of the answer when all goes well: its status, its media type (None: no body), what JSON it is."""
    for status, response in operation(method, path)["responses"].items():
        if status.startswith("2"):
            for media_type, content in response.get("content", {}).items():
                return int(status), media_type, _model(content.get("schema", {}))
            return int(status), None, None
    raise AssertionError(f"{method} {path} documents no success")


def differences(model: type[BaseModel], raw: bytes) -> list[str]:
    """In what a JSON text is not what the document says."""
    try:
        model.model_validate_json(raw, strict=True)
    except ValidationError as error:
        return [f"{model.__name__}.{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors()]
    return []


def _model(schema: dict[str, Any]) -> type[BaseModel] | None:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: type[BaseModel] | None = (
        getattr(views, name, None) or getattr(schemas, name, None) if name else None
    )
    return found
