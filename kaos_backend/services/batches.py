"""A long stream of changes in batches that are stored one by one, so that what breaks it off costs little."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kaos_backend.domain.models import AddFile, FileOp
from kaos_backend.errors import InvalidBundle

BATCH_BYTES = 32 * 1024 * 1024


class BrokenOff(InvalidBundle):
    """Whoever sent a bundle has gone before its end: what has come is good, and the rest may follow."""


class Batches:
    """Iterate over it, and over each batch to its end before the next one is asked for; a file is never in
    two.

    When the stream breaks off, the batch that is at hand ends there, and BrokenOff is raised after it.
    """

    def __init__(self, operations: Iterable[FileOp]) -> None:
        self._operations = iter(operations)
        self._next: FileOp | None = None
        self._ended = False
        self._broken: BrokenOff | None = None

    def __iter__(self) -> Iterator[Iterator[FileOp]]:
        while not self._ended:
            yield self._batch()
        if self._broken is not None:
            raise self._broken

    def _batch(self) -> Iterator[FileOp]:
        if self._next is None:
            self._advance()
        size = 0
        while (operation := self._next) is not None:
            yield operation
            self._advance()
            if isinstance(operation, AddFile):
                size += len(operation.data)
                if size >= BATCH_BYTES and not _goes_on(operation, self._next):
                    return

    def _advance(self) -> None:
        try:
            self._next = next(self._operations, None)
        except BrokenOff as error:
            self._next, self._broken = None, error
        self._ended = self._next is None


def _goes_on(one: AddFile, after: FileOp | None) -> bool:
    return isinstance(after, AddFile) and after.path == one.path
