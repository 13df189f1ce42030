"""Engine errors ↔ gRPC statuses."""

from __future__ import annotations

import logging
import sqlite3
from typing import NoReturn

import grpc

from kaos_backend.engine.errors import DISK_FULL_ERRNOS, EngineError, disk_full
from kaos_formats import reasons

_MAX_DETAILS_BYTES = 2500
"""A status is a header, percent-encoded (up to three times as long); clients take 8 KiB of headers."""

_log = logging.getLogger(__name__)


class Cancelled(EngineError):
    """The caller went away while we waited for something on its behalf."""

    default_code = "CANCELLED"


def details(message: str) -> str:
    """A message as a status can carry it: valid Unicode, and short enough for the limit on HTTP/2 headers."""
    text = message.encode("utf-8", "backslashreplace")
    if len(text) <= _MAX_DETAILS_BYTES:
        return text.decode()
    return f"{text[:_MAX_DETAILS_BYTES].decode('utf-8', 'ignore')} … ({len(text)} bytes)"


def abort(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    """End the call with the status that `error` stands for; what nobody foresaw is logged and INTERNAL."""
    if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
        error = disk_full("the store")
    if isinstance(error, EngineError):
        if error.reason:
            context.set_trailing_metadata(((reasons.KEY, error.reason),))
        context.abort(getattr(grpc.StatusCode, error.code, grpc.StatusCode.UNKNOWN), details(error.message))
    if isinstance(error, sqlite3.Error):
        _log.exception("the database failed")
        context.abort(grpc.StatusCode.INTERNAL, details(f"the store failed: {error}; see engine.log"))
    _log.exception("a call failed in a way that nobody foresaw")
    text = f"internal error ({type(error).__name__}: {error}); see engine.log"
    context.abort(grpc.StatusCode.INTERNAL, details(text))
    raise AssertionError("abort returns never")
