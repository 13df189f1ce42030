"""From the token of a request to who asks, and for how long that holds."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime

from kaos_backend.domain.rights import OWNER, Caller
from kaos_backend.errors import Unauthorized
from kaos_backend.tokens import Tokens, expired

_BEARER = b"Bearer "


class Callers:
    """The owner of the home, by the token in it, and those to whom tokens were given."""

    def __init__(self, owner: str, tokens: Tokens, now: Callable[[], datetime]) -> None:
        self._owner = owner.encode()
        self._tokens = tokens
        self._now = now

    def find(self, authorization: bytes, *, private: bool) -> Caller:
        """Who sends this header. ``private``: it comes from this machine, where alone the home's own
        token holds.

        Raises Unauthorized.
        """
        if not authorization.startswith(_BEARER):
            raise Unauthorized(
                "a token is needed",
                hint="send `Authorization: Bearer <token>`: one that `kaos token create` made or, on this "
                "machine, what the file token in KAOS_HOME holds",
            )
        secret = authorization.removeprefix(_BEARER)
        if private and hmac.compare_digest(secret, self._owner):
            return OWNER
        return self._tokens.caller(secret)

    @asynccontextmanager
    async def while_valid(self, caller: Caller) -> AsyncIterator[None]:
        """What is in the block is cancelled when the token expires or is revoked, and Unauthorized raised."""
        loop = asyncio.get_running_loop()
        left_s = None if caller.expires is None else (caller.expires - self._now()).total_seconds()
        limit = asyncio.timeout(left_s)

        def end() -> None:
            with suppress(RuntimeError):  # it has just ended by itself
                limit.reschedule(loop.time())

        try:
            async with limit:
                with self._tokens.held(caller, lambda: _call(loop, end)):
                    yield
        except TimeoutError:
            if not limit.expired():
                raise
            if caller.expires is not None and caller.expires <= self._now():
                raise expired(caller.name) from None
            raise Unauthorized(
                f"the token {caller.name} was revoked", hint="ask who administers the backend for another"
            ) from None


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop is closed: the server is going down
        loop.call_soon_threadsafe(function)
