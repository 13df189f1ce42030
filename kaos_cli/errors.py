"""The one error of the command line, and the table that turns its code into an exit code.

Raised anywhere; turned into a message, a JSON object and an exit code in ``main.py`` alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kaos_formats.errors import KaosError as FormatError

OK = 0
FAILED = 1
USAGE = 2
MISSING = 3
UNREACHABLE = 4
TIMED_OUT = 124
INTERRUPTED = 130

MEANINGS: dict[int, str] = {
    OK: "done; where a job is waited for: every trial succeeded",
    FAILED: "the job, a trial or the operation failed",
    USAGE: "wrong use or invalid input: type something else",
    MISSING: "no such thing: a job, trial, model, metric, workspace or template that is not there",
    UNREACHABLE: "backend or engine out of reach: not running, too busy, of another version, another token",
    TIMED_OUT: "the limit of waiting has passed (`--timeout`; of deploy: `--wait-timeout`); the job goes on",
    INTERRUPTED: "interrupted (Ctrl-C); the job goes on",
}
"""Every exit code of the program. Scripts lean on them: none changes its meaning."""

JSON_VERSION = 1
"""The ``version`` of every JSON answer; counts up when a field changes its meaning or goes."""

EXIT_CODES: dict[str, int] = {
    # What the user asked for is wrong: ask differently.
    "usage": USAGE,
    "ambiguous": USAGE,
    "exists": USAGE,
    "invalid_request": USAGE,
    "invalid_bundle": USAGE,
    "invalid_manifest": USAGE,
    "invalid_hyper": USAGE,
    "invalid_resources": USAGE,
    "invalid_name": USAGE,
    "never_fits": USAGE,
    "method_not_allowed": USAGE,
    "body_too_large": USAGE,
    "uri_too_long": USAGE,
    "headers_too_large": USAGE,
    "unsupported_media_type": USAGE,
    "needs_embedded_engine": USAGE,
    "settings_refused": USAGE,
    # It is not there.
    "not_found": MISSING,
    "no_such_workspace": MISSING,
    "no_such_context": MISSING,
    "no_such_token": MISSING,
    "no_such_job": MISSING,
    "no_such_model": MISSING,
    "no_such_template": MISSING,
    "no_such_metric": MISSING,
    "no_bundle": MISSING,
    # Nobody (for us) is there to ask.
    "unauthorized": UNREACHABLE,
    "version_mismatch": UNREACHABLE,
    "forbidden": UNREACHABLE,
    "not_allowed": UNREACHABLE,
    "engine_unavailable": UNREACHABLE,
    "busy": UNREACHABLE,
    "too_many_requests": UNREACHABLE,
    "request_timeout": UNREACHABLE,
    "backend_unavailable": UNREACHABLE,
    "connection_lost": UNREACHABLE,
    "stopped": UNREACHABLE,
    # What was asked for is right, but it did not work out.
    "failed": FAILED,
    "waiting": FAILED,
    "stale_base": FAILED,
    "stale_offset": FAILED,
    "no_handover": FAILED,
    "job_open": FAILED,
    "in_use": FAILED,
    "not_yet": FAILED,
    "image_missing": FAILED,
    "data_loss": FAILED,
    "fetch_failed": FAILED,
    "disk_full": FAILED,
    "changed": FAILED,
    "io": FAILED,
    "internal": FAILED,
    "timed_out": TIMED_OUT,
    "interrupted": INTERRUPTED,
}
"""Every error code that ``--json`` can show, with the exit code that goes with it."""


class KaosError(Exception):
    """A refusal or failure: ``message`` says what and where, ``hint`` what to type next.

    ``code`` is one of EXIT_CODES (an unknown one, of a newer backend, exits with 1).
    """

    def __init__(self, code: str, message: str, *, hint: str = "", **fields: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.fields: dict[str, Any] = fields

    @classmethod
    def of(cls, error: FormatError) -> KaosError:
        """What a shared format found wrong, as an error of the command line."""
        return cls(error.code, error.message, hint=error.hint, **error.fields)

    @property
    def exit_code(self) -> int:
        return EXIT_CODES.get(self.code, FAILED)

    def as_json(self) -> dict[str, Any]:
        error = {"code": self.code, "message": self.message, "hint": self.hint, "fields": self.fields}
        return {"version": JSON_VERSION, "error": error}


class ConnectionLost(Exception):
    """The backend is not there, or went away before it answered."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """``did you mean 'mnist'?`` or, when nothing is close, ``there is: a, b`` (8 at most); "" if none."""
    from difflib import get_close_matches

    names = sorted(known)
    if close := get_close_matches(given, names, n=1, cutoff=0.6):
        return f"did you mean {close[0]!r}?"
    if not names:
        return ""
    more = f", … ({len(names)} in all)" if len(names) > 8 else ""
    return "there is: " + ", ".join(names[:8]) + more
