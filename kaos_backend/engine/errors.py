"""What can go wrong in the engine, as typed values.

Every error carries the gRPC status name it is answered with; `facade.errors` does the translation. Texts
follow `reference/pachyderm-api.md`: clients match on parts of them.
"""

from __future__ import annotations

import errno
from typing import ClassVar

from kaos_formats import reasons


class EngineError(Exception):
    """A refusal or failure with a message for the caller.

    Attributes:
        code: name of the gRPC status, e.g. ``"NOT_FOUND"``.
        message: what was wrong, where, and what to do about it.
        reason: what tells it apart from others of its status (`kaos_formats.reasons`), "" if nothing has to.
    """

    default_code: ClassVar[str] = "UNKNOWN"
    reason: ClassVar[str] = ""

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code


class Unknown(EngineError):
    """A broken rule for which pachd has no status of its own (its default status is UNKNOWN)."""


class CommitFinished(Unknown):
    """What can be done to an open commit only."""

    reason = reasons.COMMIT_FINISHED

    def __init__(self, commit: object) -> None:
        super().__init__(f"commit {commit} has already finished")


class CommitForgotten(Unknown):
    """Reading what nobody wanted to keep."""

    def __init__(self, commit: object) -> None:
        super().__init__(f"commit {commit}: the commit is forgotten, its files are gone")


class Changed(EngineError):
    """A file that was handed over is not the one that was listed any more."""

    default_code = "ABORTED"
    reason = reasons.CHANGED

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} changed while it was being read")


class NoHandover(EngineError):
    """Files of this machine cannot be handed over: the caller has to send or take their bytes."""

    default_code = "FAILED_PRECONDITION"
    reason = reasons.NO_HANDOVER


class NotFound(EngineError):
    default_code = "NOT_FOUND"


class ImageMissing(NotFound):
    """An image that only another build brings back."""

    reason = reasons.IMAGE_MISSING


class AlreadyExists(EngineError):
    default_code = "ALREADY_EXISTS"


class InvalidArgument(EngineError):
    default_code = "INVALID_ARGUMENT"


class FailedPrecondition(EngineError):
    default_code = "FAILED_PRECONDITION"


class NeverFits(FailedPrecondition):
    """More is asked for than the machine has."""

    reason = reasons.NEVER_FITS


class Unimplemented(EngineError):
    default_code = "UNIMPLEMENTED"


class ResourceExhausted(EngineError):
    """Something has run out: nothing was changed, and the call may be repeated."""

    default_code = "RESOURCE_EXHAUSTED"


class DiskFull(ResourceExhausted):
    """The disk, or a quota of it."""

    reason = reasons.DISK_FULL


class TooManyCalls(ResourceExhausted):
    """As many calls as may wait at a time wait already."""

    reason = reasons.TOO_MANY_CALLS


class Internal(EngineError):
    default_code = "INTERNAL"


class DataLoss(EngineError):
    """What is stored is not what was put in, or is gone.

    Attributes:
        object: the name (BLAKE3-256) of what is damaged: content, or the listing of a directory.
        what: what is wrong with it.
        where: the path whose content it is, and of what; empty when only the object is known.
    """

    default_code = "DATA_LOSS"

    def __init__(self, object_: bytes, what: str, where: str = "") -> None:
        super().__init__(
            f"{where or 'stored content'} is damaged: object {object_.hex()} {what}; send the same content "
            "again to heal it, or see what `kaos fsck --repair` can do"
        )
        self.object = object_
        self.what = what
        self.where = where

    def at(self, where: str) -> DataLoss:
        """The same, knowing where it was met; from the inside out: a path, then what holds it."""
        return DataLoss(self.object, self.what, f"{self.where} in {where}" if self.where else where)


DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})


def disk_full(where: str) -> DiskFull:
    """The error for a write that found no room below `where`."""
    return DiskFull(f"no space left on the device that holds {where}: free some space and try again")
