"""The one map from what gRPC and the SDK raise to the errors of kaos."""

from __future__ import annotations

import grpc

from kaos_backend import errors

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
    return from_status(error.code(), error.details() or "")


def from_status(code: grpc.StatusCode, details: str) -> errors.KaosError:
    """The KaosError for a gRPC status and its text."""
    status = grpc.StatusCode
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
    if code is status.RESOURCE_EXHAUSTED:
        return errors.DiskFull(details, hint="free some space and try again; nothing was stored")
    if code is status.UNIMPLEMENTED:
        return errors.NeedsEmbeddedEngine(
            f"this pachd cannot do that: {details}",
            hint="only the embedded engine can, which runs where KAOS_ENGINE_ADDRESS is not set",
        )
    if code is status.DATA_LOSS:
        return errors.DataLoss(details, hint="`kaos fsck` names all that is damaged")
    if code is status.FAILED_PRECONDITION and "this machine has" in details:
        return errors.NeverFits(details, hint="ask for less with --cpu, --memory or --gpu")
    return errors.Internal(f"{code.name}: {details}", hint=_HINT_LOG)
