"""Errors as they pass between backend and command line: a stable code, a message, a hint and values.

The backend builds its tree of errors on KaosError; those below are raised by the formats themselves.
"""

from __future__ import annotations

from typing import Any, ClassVar


class KaosError(Exception):
    """A refusal or failure that a person can act on.

    ``message`` says what was wrong and where, ``hint`` what to do next, ``fields`` carries values for
    programs.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "", **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fields: dict[str, Any] = fields


class InvalidBundle(KaosError, ValueError):
    code = "invalid_bundle"
    http_status = 400


class InvalidManifest(KaosError, ValueError):
    code = "invalid_manifest"
    http_status = 400


class InvalidHyper(KaosError, ValueError):
    code = "invalid_hyper"
    http_status = 400


class InvalidResources(KaosError, ValueError):
    code = "invalid_resources"
    http_status = 400


class InvalidName(KaosError, ValueError):
    code = "invalid_name"
    http_status = 400
