"""Calls that last as long as others like: how many there may be, and when one has stalled.

A waiting call lasts until something changes, a stream until its client has taken or sent the last message.
Each holds a thread of the server. The rest of the threads are for calls that only the engine keeps waiting,
such as the one that ends what the others wait for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar
from weakref import WeakSet

import grpc

from kaos_backend.engine.errors import TooManyCalls
from kaos_backend.engine.facade.errors import Cancelled

_T = TypeVar("_T")

THREADS = 256
"""Threads of the server. No more than this: each that wakes may open a database connection, and many systems
give a process 1024 descriptors."""
STALLED_S = 600.0
"""How long a client may take over one message. A trial that is fed by a stream may be slow; it never is dead
for so long."""
_SPARE_THREADS = 32

_places = threading.BoundedSemaphore(THREADS - _SPARE_THREADS)
_placed: WeakSet[grpc.ServicerContext] = WeakSet()
_lock = threading.Lock()


def take_place(context: grpc.ServicerContext) -> None:
    """Count a call among those that last, until it ends; again for one that is counted does nothing.

    Raises:
        Cancelled: the caller went away.
        TooManyCalls: there are too many already.
    """
    with _lock:
        if context in _placed:
            return
        _placed.add(context)
    if not _places.acquire(blocking=False):
        raise TooManyCalls("too many calls that wait or stream: end some, or try again later")
    if not context.add_callback(_places.release):
        _places.release()
        raise Cancelled("the call was cancelled")


class Stalls:
    """Ends calls whose client has been silent for `limit_s`; one thread, as long as there is such a call."""

    def __init__(self, limit_s: float = STALLED_S, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.limit_s = limit_s
        self._monotonic = monotonic
        self._since: dict[grpc.ServicerContext, float] = {}
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def sent(self, messages: Iterable[_T], context: grpc.ServicerContext) -> Iterator[_T]:
        """Messages for a client, which says that it has taken one by asking for the next."""
        for message in messages:
            self._begin(context)
            try:
                yield message
            finally:
                self._since.pop(context, None)
            # What is not referred to here any more need not stay in memory while the next one is made.
            del message

    def received(self, messages: Iterator[_T], context: grpc.ServicerContext) -> Iterator[_T]:
        """Messages from a client. What broke the stream off is raised."""
        while True:
            self._begin(context)
            try:
                message = next(messages, None)
            finally:
                self._since.pop(context, None)
            if message is None:
                return
            yield message
            del message

    def _begin(self, context: grpc.ServicerContext) -> None:
        self._since[context] = self._monotonic()
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._watch, name="stalls", daemon=True)
                    self._thread.start()

    def _watch(self) -> None:
        while True:
            time.sleep(self.limit_s / 10)
            now = self._monotonic()
            # A copy, made at once: others begin and end meanwhile.
            for context, since in self._since.copy().items():
                if now - since > self.limit_s:
                    context.cancel()
