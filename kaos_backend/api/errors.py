"""From KaosErrors (and whatever else escapes) to HTTP, at one place."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from kaos_backend import __version__
from kaos_backend.errors import Internal, InvalidRequest, KaosError, NotFound
from kaos_backend.services.views import FORMAT

VERSION_HEADER = "X-Kaos-Version"

_log = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    """Registers the handlers: every error answer has the body ``{"version", "error": {code,
    message, hint, fields}}``.
    """
    app.add_exception_handler(KaosError, _kaos_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


def body(error: KaosError) -> dict[str, Any]:
    """The JSON body of an error."""
    described = {"code": error.code, "message": error.message, "hint": error.hint, "fields": error.fields}
    return {"version": FORMAT, "error": described}


def _answer(error: KaosError, status: int | None = None) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if error.http_status == 401 else None
    return JSONResponse(body(error), status_code=status or error.http_status, headers=headers)


async def _kaos_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, KaosError)
    if error.http_status >= 500:
        # Only a bug needs its traceback; a dead engine or a full disk says all there is to say.
        trace = error if isinstance(error, Internal) else None
        _log.error(
            "%s %s: %s: %s", request.method, request.url.path, error.code, error.message, exc_info=trace
        )
    return _answer(error)


async def _validation_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = [f"{'.'.join(str(part) for part in p['loc'])}: {p['msg']}" for p in error.errors()[:5]]
    return _answer(InvalidRequest("; ".join(problems), hint="see docs/api.md for what this request takes"))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        return _answer(NotFound(f"nothing is at {what}"))
    return _answer(InvalidRequest(f"{what}: {error.detail}"), error.status_code)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    answer = _answer(
        Internal(f"{type(error).__name__}: {error}", hint="see backend.log in the logs folder of KAOS_HOME")
    )
    # This handler runs outside of all middleware, which would have put the header.
    answer.headers[VERSION_HEADER] = __version__
    return answer
