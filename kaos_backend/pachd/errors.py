"""The one map from what gRPC and the SDK raise to the errors of kaos."""

from __future__ import annotations

import grpc

from kaos_backend import errors
from kaos_formats import reasons

_PACHD_TEXTS = {
    "has already finished": reasons.COMMIT_FINISHED,
    "no space left on device": reasons.DISK_FULL,
}
_HINT_LOG = "see engine.log in the logs folder of KAOS_HOME, or pachd's log on a cluster"


def never_connected(error: BaseException) -> bool:
    """Whether the request certainly did not reach the server, so that even a write may be sent again."""
    return isinstance(error, ConnectionError)


def translate(error: BaseException) -> errors.KaosError:
    """The KaosError that stands for ``error``, with the server's own text as the message."""
    if isinstance(error, errors.KaosError):
        return error
    if isinstance(error, ConnectionError):
        return errors.EngineUnavailable("the Pachyderm engine does not answer", hint=_HINT_LOG)
    if not isinstance(error, grpc.RpcError) or not isinstance(error, grpc.Call):
        return errors.Internal(f"{type(error).__name__}: {error}")
    return from_status(error.code(), error.details() or "", _reason(error))


class CommitFinished(errors.Internal):
    """The commit was finished before: no error to whoever wants just that."""


def from_status(code: grpc.StatusCode, details: str, reason: str = "") -> errors.KaosError:
    """The KaosError for a gRPC status, its text, and the reason that kaos's engine adds to some of them."""
    status = grpc.StatusCode
    reason = reason or _by_text(code, details)
    if reason == reasons.DISK_FULL:
        return errors.DiskFull(details, hint="free some space and try again; nothing was stored")
    if reason == reasons.TOO_MANY_CALLS:
        return errors.Busy(f"the engine has as many calls waiting as it takes: {details}")
    if reason == reasons.NEVER_FITS:
        return errors.NeverFits(details, hint="ask for less with --cpu, --memory or --gpu")
    if reason == reasons.COMMIT_FINISHED:
        return CommitFinished(details)
    if reason == reasons.CHANGED:
        return errors.Changed(
            details, hint="deploy again when nothing writes to it, or leave it out with .kaosignore"
        )
    if reason == reasons.NO_HANDOVER:
        return errors.NoHandover(details)
    if reason == reasons.IMAGE_MISSING:
        return errors.ImageMissing(details)
    if code is status.NOT_FOUND:
        return errors.NotFound(details)
    if code is status.ALREADY_EXISTS:
        return errors.Exists(details)
    if code is status.UNAVAILABLE:
        return errors.EngineUnavailable(f"the Pachyderm engine does not answer: {details}", hint=_HINT_LOG)
    if code is status.UNAUTHENTICATED:
        return errors.EngineUnavailable(
            f"the Pachyderm engine refused the token: {details}",
            hint="the engine was started with another token; `kaos down` and then any command starts it anew",
        )
    if code is status.UNIMPLEMENTED:
        return errors.NeedsEmbeddedEngine(
            f"this pachd cannot do that: {details}",
            hint="only the embedded engine can, which runs where KAOS_ENGINE_ADDRESS is not set",
        )
    if code is status.DATA_LOSS:
        return errors.DataLoss(details, hint="`kaos fsck` names all that is damaged")
    return errors.Internal(f"{code.name}: {details}", hint=_HINT_LOG)


def _reason(error: grpc.Call) -> str:
    metadata = error.trailing_metadata() or ()
    return next((str(value) for key, value in metadata if key == reasons.KEY), "")


def _by_text(code: grpc.StatusCode, details: str) -> str:
    """What a pachd says in words alone. The texts are stable: its own clients match on them."""
    if code not in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL):
        return ""
    return next((reason for text, reason in _PACHD_TEXTS.items() if text in details), "")
