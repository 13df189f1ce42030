"""Making the next messages while the last ones are on the wire."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T", bound=Sized)

# A batch goes over when it has this many bytes or items; so many batches wait at most.
_BATCH_BYTES = 1 << 20
_BATCH_ITEMS = 256
_WAITING = 4
_LOOK_S = 0.5


def prefetch(items: Iterable[T]) -> Iterator[T]:
    """The items in their order, made by a thread of its own while the caller is busy with earlier ones.

    gRPC asks for a message only when the one before it has left, so that making and sending would take turns.
    An error of `items` is raised where its item would have been. When the caller stops early, the thread
    ends at its next item.
    """
    batches: queue.Queue[list[T] | BaseException | None] = queue.Queue(_WAITING)
    stopped = threading.Event()

    def put(batch: list[T] | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                batches.put(batch, timeout=_LOOK_S)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        batch: list[T] = []
        size = 0
        end: BaseException | None = None
        try:
            for item in items:
                batch.append(item)
                size += len(item)
                if size >= _BATCH_BYTES or len(batch) >= _BATCH_ITEMS:
                    if not put(batch):
                        return
                    batch, size = [], 0
        except BaseException as error:
            end = error
        if batch:
            put(batch)
        put(end)

    threading.Thread(target=make, name="prefetch", daemon=True).start()
    try:
        while True:
            got = batches.get()
            if got is None:
                return
            if isinstance(got, BaseException):
                raise got
            yield from got
    finally:
        stopped.set()
