"""Mutual exclusion within the one backend process, by key."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class KeyedLocks:
    """One lock per key, made when first asked for. Not reentrant."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[tuple[str, ...], threading.Lock] = {}

    @contextmanager
    def hold(self, *key: str) -> Iterator[None]:
        """Waits for the lock of ``key`` and holds it for the block."""
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            yield

    def held(self, *key: str) -> bool:
        """Whether somebody holds the lock of ``key`` right now."""
        with self._guard:
            lock = self._locks.get(key)
        return lock is not None and lock.locked()
