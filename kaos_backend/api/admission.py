"""Admission: each kind of request has places of its own, so that filling one kind does not stop another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Literal

from kaos_backend.errors import Busy
from kaos_backend.settings import Limits

Place = Literal["none", "calls", "uploads", "downloads", "logs", "foreground"]


class Admission:
    """The places of one application, and the line of those who wait for each kind."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._places = {
            "calls": _Places("calls", limits.calls, limits),
            "uploads": _Places("uploads", limits.uploads, limits),
            "downloads": _Places("downloads", limits.downloads, limits),
            "logs": _Places("log streams", limits.logs, limits),
            "foreground": _Places("commands in the foreground", limits.foreground, limits),
        }
        self._large = _Places("requests with a large body", limits.large_bodies, limits)

    def take(self, place: Place) -> AbstractAsyncContextManager[None]:
        """A place for as long as the block takes. Raises Busy when none becomes free in time."""
        return nullcontext() if place == "none" else self._places[place].take()

    def take_for(self, body_bytes: int) -> AbstractAsyncContextManager[None]:
        """A place for a body that is held in memory and parsed there. Raises Busy."""
        return nullcontext() if body_bytes <= self._limits.small_body_bytes else self._large.take()


class _Places:
    def __init__(self, what: str, number: int, limits: Limits) -> None:
        self._what = what
        self._number = number
        self._free = asyncio.Semaphore(number)
        self._waiting = 0
        self._limits = limits

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        if self._free.locked() and self._waiting >= self._limits.queue:
            raise self._busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._limits.queue_s):
                await self._free.acquire()
        except TimeoutError:
            raise self._busy() from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()

    def _busy(self) -> Busy:
        return Busy(f"the backend is busy: all {self._number} places for {self._what} are taken")
