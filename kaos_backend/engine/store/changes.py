"""Telling waiting threads that something was committed."""

from __future__ import annotations

import threading


class ChangeBus:
    """A counter that grows with every committed write, and a way to wait for it to grow.

    The usual loop never misses a change: read `version`, look at the world, then `wait` for that version to
    pass.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._version = 0

    def version(self) -> int:
        with self._condition:
            return self._version

    def notify(self) -> None:
        """Count a change and wake every waiter."""
        with self._condition:
            self._version += 1
            self._condition.notify_all()

    def wait(self, since: int, timeout_s: float | None = None) -> int:
        """Block until the version is past `since` or `timeout_s` seconds have gone by; return the version."""
        with self._condition:
            self._condition.wait_for(lambda: self._version > since, timeout_s)
            return self._version
