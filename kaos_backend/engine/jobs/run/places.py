"""How many datums of one job are run at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Places:
    """So many places; who waits for one can give up, which a semaphore does not know."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._changed = threading.Condition()

    def take(self, given_up: Callable[[], bool]) -> bool:
        """Wait for a place. False, and none is taken, once `given_up()` is true (call `nudge` when it is)."""
        with self._changed:
            self._changed.wait_for(lambda: self._free or given_up())
            if given_up():
                return False
            self._free -= 1
            return True

    def give_back(self) -> None:
        with self._changed:
            self._free += 1
            self._changed.notify_all()

    def nudge(self) -> None:
        """Make everyone who waits look again whether to give up."""
        with self._changed:
            self._changed.notify_all()
