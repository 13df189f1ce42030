"""The one tree of errors of the backend: a stable ``code``, an HTTP status, and the values that matter.

Raised by the domain, the services and the Pachyderm adapter; translated to HTTP at one place
(``api.errors``). Imports nothing.
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


class NotFound(KaosError):
    code = "not_found"
    http_status = 404


class NoSuchWorkspace(KaosError):
    code = "no_such_workspace"
    http_status = 404


class NoSuchJob(KaosError):
    code = "no_such_job"
    http_status = 404


class NoSuchModel(KaosError):
    code = "no_such_model"
    http_status = 404


class NoBundle(KaosError):
    code = "no_bundle"
    http_status = 404


class Ambiguous(KaosError):
    """A prefix names several things; ``fields["candidates"]`` lists (the first of) them."""

    code = "ambiguous"
    http_status = 409


class Exists(KaosError):
    code = "exists"
    http_status = 409


class StaleBase(KaosError):
    """The bundle that an upload builds on is no longer current."""

    code = "stale_base"
    http_status = 409


class VersionMismatch(KaosError):
    code = "version_mismatch"
    http_status = 409


class InvalidRequest(KaosError):
    """The HTTP request itself is malformed: wrong types, unknown parameters, a wrong method."""

    code = "invalid_request"
    http_status = 400


class InvalidBundle(KaosError):
    code = "invalid_bundle"
    http_status = 400


class InvalidHyper(KaosError):
    code = "invalid_hyper"
    http_status = 400


class InvalidResources(KaosError):
    code = "invalid_resources"
    http_status = 400


class InvalidName(KaosError):
    code = "invalid_name"
    http_status = 400


class NeverFits(KaosError):
    """What is asked for is more than the machine has."""

    code = "never_fits"
    http_status = 422


class Unauthorized(KaosError):
    code = "unauthorized"
    http_status = 401


class DiskFull(KaosError):
    code = "disk_full"
    http_status = 507


class EngineUnavailable(KaosError):
    code = "engine_unavailable"
    http_status = 503


class Internal(KaosError):
    code = "internal"
    http_status = 500


def all_errors() -> tuple[type[KaosError], ...]:
    """Every error class of the tree, in the order in which they are written above."""
    return tuple(KaosError.__subclasses__())
