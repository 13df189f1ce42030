"""Mutual exclusion within the one backend process, by key."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from kaos_backend.errors import Busy


class KeyedLocks:
    """One lock per key, there for as long as somebody holds it or waits for it. Not reentrant."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[tuple[str, ...], tuple[threading.Lock, int]] = {}

    @contextmanager
    def hold(self, *key: str, patience_s: float = -1) -> Iterator[None]:
        """Waits for the lock of ``key`` and holds it for the block.

        Raises Busy if somebody else holds it for ``patience_s`` more (by default it waits for ever).
        """
        with self._guard:
            lock, users = self._locks.get(key, (threading.Lock(), 0))
            self._locks[key] = (lock, users + 1)
        try:
            if not lock.acquire(timeout=patience_s):
                raise Busy(f"something else is being done with {' '.join(key[1:])}")
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._guard:
                lock, users = self._locks[key]
                if users > 1:
                    self._locks[key] = (lock, users - 1)
                else:
                    del self._locks[key]

    def held(self, *key: str) -> bool:
        """Whether somebody holds the lock of ``key`` right now, or is about to."""
        with self._guard:
            return key in self._locks
