"""Engine errors ↔ gRPC statuses."""

from __future__ import annotations

import logging
import sqlite3
from typing import NoReturn

import grpc

from kaos_backend.engine.errors import DISK_FULL_ERRNOS, EngineError, disk_full

_log = logging.getLogger(__name__)


class Cancelled(EngineError):
    """The caller went away while we waited for something on its behalf."""

    default_code = "CANCELLED"


def abort(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    """End the call with the status that `error` stands for; what nobody foresaw is logged and INTERNAL."""
    if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
        error = disk_full("the store")
    if isinstance(error, EngineError):
        context.abort(getattr(grpc.StatusCode, error.code, grpc.StatusCode.UNKNOWN), error.message)
    if isinstance(error, sqlite3.Error):
        _log.exception("the database failed")
        context.abort(grpc.StatusCode.INTERNAL, f"the store failed: {error}; see engine.log")
    _log.exception("a call failed in a way that nobody foresaw")
    context.abort(
        grpc.StatusCode.INTERNAL, f"internal error ({type(error).__name__}: {error}); see engine.log"
    )
    raise AssertionError("abort returns never")
