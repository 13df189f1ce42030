"""A long stream of changes in batches that are stored one by one, so that what breaks it off costs little."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kaos_backend.domain.models import AddFile, FileOp
from kaos_backend.errors import InvalidBundle

BATCH_BYTES = 32 * 1024 * 1024


class BrokenOff(InvalidBundle):
    """Whoever sent a bundle has gone before its end: what has come is good, and the rest may follow."""


class Cut:
    """Among changes: all before it are stored by the time that the next one is asked for."""


CUT = Cut()
Step = FileOp | Cut


class Batches:
    """Iterate over it, and over each batch to its end before the next one is asked for.

    With ``whole_files`` a file is never in two. When the stream breaks off, the batch that is at hand ends
    there, and BrokenOff is raised after it.
    """

    def __init__(self, steps: Iterable[Step], *, whole_files: bool = True) -> None:
        self._steps = iter(steps)
        self._whole_files = whole_files
        self._next: Step | None = CUT
        self._broken: BrokenOff | None = None

    def __iter__(self) -> Iterator[Iterator[FileOp]]:
        while self._next is not None:
            if isinstance(self._next, Cut):
                self._advance()
            else:
                yield self._batch()
        if self._broken is not None:
            raise self._broken

    def _batch(self) -> Iterator[FileOp]:
        size = 0
        while (step := self._next) is not None and not isinstance(step, Cut):
            yield step
            self._advance()
            if isinstance(step, AddFile):
                size += len(step.data)
                if size >= BATCH_BYTES and not (self._whole_files and _goes_on(step, self._next)):
                    return

    def _advance(self) -> None:
        try:
            self._next = next(self._steps, None)
        except BrokenOff as error:
            self._next, self._broken = None, error


def _goes_on(one: AddFile, after: Step | None) -> bool:
    return isinstance(after, AddFile) and after.path == one.path
