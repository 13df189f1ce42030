"""The one tree of errors of the backend: a stable ``code``, an HTTP status, and the values that matter.

Raised by the formats, the domain, the services and the Pachyderm adapter; translated to HTTP at one place
(``api.errors``).
"""

from __future__ import annotations

from kaos_formats.errors import InvalidBundle as InvalidBundle
from kaos_formats.errors import InvalidHyper as InvalidHyper
from kaos_formats.errors import InvalidManifest as InvalidManifest
from kaos_formats.errors import InvalidName as InvalidName
from kaos_formats.errors import InvalidResources as InvalidResources
from kaos_formats.errors import KaosError as KaosError


class NotFound(KaosError):
    code = "not_found"
    http_status = 404


class NoSuchWorkspace(KaosError):
    code = "no_such_workspace"
    http_status = 404


class NoSuchJob(KaosError):
    code = "no_such_job"
    http_status = 404


class NoSuchToken(KaosError):
    code = "no_such_token"
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


class ImageMissing(KaosError):
    """An image that was built is gone, and only another build brings it back."""

    code = "image_missing"
    http_status = 409


class Changed(KaosError):
    """A file that was handed over changed while it was being read; nothing of the whole list was kept."""

    code = "changed"
    http_status = 409


class NoHandover(KaosError):
    """Files of the client's machine cannot be handed over: it has to send or fetch their bytes."""

    code = "no_handover"
    http_status = 409


class StaleBase(KaosError):
    """The bundle that an upload builds on is no longer current."""

    code = "stale_base"
    http_status = 409


class StaleOffset(KaosError):
    """What an upload goes on behind is not what is there of that file: ``fields["held"]`` bytes are."""

    code = "stale_offset"
    http_status = 409


class JobOpen(KaosError):
    """What is asked for would end jobs that have not ended; ``fields["jobs"]`` has their ids."""

    code = "job_open"
    http_status = 409


class InUse(KaosError):
    """What was to be removed is current, or jobs that stay need it: ``fields["jobs"]`` has their ids."""

    code = "in_use"
    http_status = 409


class NotYet(KaosError):
    """What is asked for can be done later: the job has not come so far."""

    code = "not_yet"
    http_status = 409


class VersionMismatch(KaosError):
    code = "version_mismatch"
    http_status = 409


class InvalidRequest(KaosError):
    """The HTTP request itself is malformed: wrong types, unknown parameters, a wrong method."""

    code = "invalid_request"
    http_status = 400


class NeverFits(KaosError):
    """What is asked for is more than the machine has."""

    code = "never_fits"
    http_status = 422


class Unauthorized(KaosError):
    code = "unauthorized"
    http_status = 401


class Forbidden(KaosError):
    """The request comes from a web page, or for a host that this backend is not."""

    code = "forbidden"
    http_status = 403


class NotAllowed(KaosError):
    """The caller's token has not the right that the request needs: ``fields["right"]``."""

    code = "not_allowed"
    http_status = 403


class MethodNotAllowed(KaosError):
    """``fields["allowed"]`` lists the methods that the path has."""

    code = "method_not_allowed"
    http_status = 405


class RequestTimeout(KaosError):
    """The client did not send its request, or the next part of it, in time."""

    code = "request_timeout"
    http_status = 408


class BodyTooLarge(KaosError):
    code = "body_too_large"
    http_status = 413


class UriTooLong(KaosError):
    code = "uri_too_long"
    http_status = 414


class UnsupportedMediaType(KaosError):
    code = "unsupported_media_type"
    http_status = 415


class HeadersTooLarge(KaosError):
    code = "headers_too_large"
    http_status = 431


class Busy(KaosError):
    """All places for such requests are taken; in ``fields["retry_after_s"]`` seconds there may be one."""

    code = "busy"
    http_status = 503

    def __init__(self, message: str, *, hint: str = "try again in a few seconds") -> None:
        super().__init__(message, hint=hint, retry_after_s=2)


class TooManyRequests(KaosError):
    """A token asks for more than it may just now; in ``fields["retry_after_s"]`` seconds it may again."""

    code = "too_many_requests"
    http_status = 429

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message, hint="ask less often", retry_after_s=retry_after_s)


class DiskFull(KaosError):
    code = "disk_full"
    http_status = 507


class DataLoss(KaosError):
    """Stored content is damaged or gone; the message names the file."""

    code = "data_loss"
    http_status = 500


class NeedsEmbeddedEngine(KaosError):
    """What was asked for is none of pachd's business, and pachd is not the embedded engine."""

    code = "needs_embedded_engine"
    http_status = 501


class FetchFailed(KaosError):
    """Remote data could not be asked for."""

    code = "fetch_failed"
    http_status = 502


class EngineUnavailable(KaosError):
    code = "engine_unavailable"
    http_status = 503


class SettingsRefused(KaosError):
    """The engine does not start with the environment that this backend has: no other try would help."""

    code = "settings_refused"
    http_status = 503


class Internal(KaosError):
    code = "internal"
    http_status = 500


def all_errors() -> tuple[type[KaosError], ...]:
    """Every error class of the tree, the formats' first."""
    return tuple(KaosError.__subclasses__())
