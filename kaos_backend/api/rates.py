"""How much each token may ask for: a token bucket of requests, and so many open at a time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kaos_backend.errors import TooManyRequests
from kaos_backend.settings import Limits


class Rates:
    """Of one application, on its event loop. ``now`` in seconds, from a clock that never goes back."""

    def __init__(self, limits: Limits, now: Callable[[], float]) -> None:
        self._limits = limits
        self._now = now
        # By name: how many requests are left, as of when.
        self._left: dict[str, tuple[float, float]] = {}
        self._open: Counter[str] = Counter()

    @contextmanager
    def take(self, name: str) -> Iterator[None]:
        """One request of a token, for as long as the block takes. Raises TooManyRequests."""
        limits, now = self._limits, self._now()
        left, since = self._left.get(name, (float(limits.token_burst), now))
        left = min(limits.token_burst, left + (now - since) * limits.token_requests_s)
        if left < 1:
            wait_s = math.ceil((1 - left) / limits.token_requests_s)
            raise TooManyRequests(
                f"token {name} may make {limits.token_requests_s:g} requests a second", retry_after_s=wait_s
            )
        if self._open[name] >= limits.token_open:
            raise TooManyRequests(
                f"token {name} may have {limits.token_open} requests open at a time",
                retry_after_s=1,
            )
        self._left[name] = (left - 1, now)
        self._open[name] += 1
        try:
            yield
        finally:
            self._open[name] -= 1
            if not self._open[name]:
                del self._open[name]
