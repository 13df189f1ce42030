"""The time limit of a command that waits: an alarm that interrupts it as Ctrl-C would, wherever it is."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


class TimeLimitReached(BaseException):
    """Of KeyboardInterrupt's rank: no handler of a lost connection may take it for one."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TimeLimitReached in the block when it has not ended after ``seconds``; None: no limit."""
    if seconds is None:
        yield
        return

    def expire(*_: object) -> NoReturn:
        raise TimeLimitReached

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
