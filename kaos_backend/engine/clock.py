"""Time as a value that is passed in: UTC microseconds since the epoch."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]


def now_us() -> int:
    """The wall clock, in microseconds since 1970-01-01T00:00Z."""
    return time.time_ns() // 1000
