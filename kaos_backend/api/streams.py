"""Between asyncio and the threads that do the work: request bodies in, JSON lines out, both bounded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, Protocol

from fastapi import Request
from fastapi.responses import StreamingResponse

from kaos_backend.errors import Internal, KaosError
from kaos_backend.services.batches import BrokenOff

MAX_BUFFERED_BYTES = 1024 * 1024
_DISCONNECT_CHECK_S = 1.0
_GATHER_S = 0.02
# Enough to be sent at once, and what waits to be sent at most (and a piece): there may be many streams.
_MANY_BYTES = 256 * 1024

_log = logging.getLogger(__name__)


class BodyPipe:
    """A request body handed from the event loop to a reading thread (``tar.Source``).

    At most 1 MiB and a chunk wait in between: ``feed`` waits while there is more, ``read`` while there is
    nothing.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._condition = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._ended = False
        self._broken = False
        self._abandoned = False
        self._room = asyncio.Event()
        self._room.set()

    async def feed(self, body: AsyncIterator[bytes]) -> None:
        """Passes the whole body on; whatever breaks it off breaks the reader too."""
        try:
            async for chunk in body:
                if not chunk:
                    continue
                with self._condition:
                    if self._abandoned:
                        return
                    self._chunks.append(chunk)
                    self._buffered += len(chunk)
                    if self._buffered >= MAX_BUFFERED_BYTES:
                        self._room.clear()
                    self._condition.notify()
                await self._room.wait()
            self._finish(broken=False)
        except BaseException:
            self._finish(broken=True)
            raise

    def abandon(self) -> None:
        """The reader wants no more: ``feed`` returns, and so does a ``read`` in another thread."""
        with self._condition:
            self._abandoned = True
            self._chunks.clear()
            if not self._ended:
                # Whoever still waits in ``read`` must not wait for ever.
                self._ended = self._broken = True
            self._condition.notify_all()
        self._loop.call_soon_threadsafe(self._room.set)

    def read(self, size: int, /) -> bytes:
        """Some bytes, at most ``size``; b"" at the end. Raises BrokenOff behind the last ones if the client
        went away.
        """
        with self._condition:
            while not self._chunks and not self._ended:
                self._condition.wait()
            if not self._chunks:
                if self._broken:
                    raise BrokenOff("the upload broke off", hint="deploy again: it goes on where it stopped")
                return b""
            chunk = self._chunks.popleft()
            if len(chunk) > size:
                self._chunks.appendleft(chunk[size:])
                chunk = chunk[:size]
            was_full = self._buffered >= MAX_BUFFERED_BYTES
            self._buffered -= len(chunk)
            if was_full and self._buffered < MAX_BUFFERED_BYTES:
                self._loop.call_soon_threadsafe(self._room.set)
            return chunk

    def _finish(self, *, broken: bool) -> None:
        with self._condition:
            self._ended = True
            self._broken = broken
            self._condition.notify_all()


NO_STORE = {"Cache-Control": "no-store"}


class JsonLines(StreamingResponse):
    """An answer of one JSON object per line."""

    media_type = "application/x-ndjson"


class Closable(Protocol):
    def __iter__(self) -> Iterator[Any]: ...

    def close(self) -> None: ...


class Steps:
    """An iterator of steps, of which the first is made at once, so that what cannot be done is an answer and
    not a broken stream. ``close`` ends it at its next step.
    """

    def __init__(self, steps: Iterator[Any]) -> None:
        self._first = next(steps)
        self._steps = steps
        self._closed = False

    def __iter__(self) -> Iterator[Any]:
        yield self._first
        for step in self._steps:
            if self._closed:
                return
            yield step

    def close(self) -> None:
        self._closed = True


def json_lines(reading: Closable, encode: Callable[[Any], dict[str, Any]], request: Request) -> JsonLines:
    """The answer with the items of ``reading`` as JSON lines, see ``encoded``."""
    chunks = encoded(reading, lambda item: json_line(encode(item)), request.is_disconnected)
    return JsonLines(chunks, headers=NO_STORE)


async def encoded(
    reading: Closable, encode: Callable[[Any], bytes], disconnected: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    """The items of ``reading``, iterated and encoded in a thread; closed when the client goes away.

    An error on the way ends the stream with the line ``{"end":true,"state":null,"error":{…}}``.
    """
    pump = _Pump(reading, encode)
    thread = threading.Thread(target=pump.run, name="json-lines", daemon=True)
    thread.start()
    try:
        while True:
            pieces = await pump.take(_DISCONNECT_CHECK_S)
            if pieces is None:
                return
            if pieces:
                yield pieces[0] if len(pieces) == 1 else b"".join(pieces)
                # Not to be kept while the next are waited for.
                del pieces
            elif await disconnected():
                return
    finally:
        pump.stop()
        reading.close()


def json_line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


class _Pump:
    def __init__(self, reading: Iterable[Any], encode: Callable[[Any], bytes]) -> None:
        self._reading = reading
        self._encode = encode
        self._loop = asyncio.get_running_loop()
        self._ready, self._many = asyncio.Event(), asyncio.Event()
        self._condition = threading.Condition()
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._ended = False
        self._stopped = False

    def run(self) -> None:
        try:
            for item in self._reading:
                if not self._put(self._encode(item)):
                    return
        except KaosError as error:
            self._put(_failed(error))
        except Exception:
            _log.exception("a stream of lines failed")
            self._put(_failed(Internal("the answer could not be made to its end", hint="see backend.log")))
        finally:
            with self._condition:
                self._ended = True
            self._wake(self._ready, self._many)

    async def take(self, timeout_s: float) -> list[bytes] | None:
        """What is there, [] after ``timeout_s`` without anything, None at the end."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        except TimeoutError:
            return []
        # Lines that come one by one would each become an answer of its own, with all that sending one takes.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GATHER_S):
                await self._many.wait()
        with self._condition:
            pieces, self._pieces, self._buffered = self._pieces, [], 0
            self._condition.notify()
            if not pieces and self._ended:
                return None
            if not self._ended:
                self._ready.clear()
                self._many.clear()
        return pieces

    def stop(self) -> None:
        with self._condition:
            self._stopped = True
            self._condition.notify()

    def _put(self, piece: bytes) -> bool:
        with self._condition:
            while self._buffered >= _MANY_BYTES and not self._stopped:
                self._condition.wait()
            if self._stopped:
                return False
            before = self._buffered
            self._pieces.append(piece)
            self._buffered += len(piece)
            reached = self._buffered
            # Under the lock, so that who takes finds both as they are.
            if not before:
                self._wake(self._ready)
            if before < _MANY_BYTES <= reached:
                self._wake(self._many)
        return True

    def _wake(self, *events: asyncio.Event) -> None:
        try:
            for event in events:
                self._loop.call_soon_threadsafe(event.set)
        except RuntimeError:
            self._stopped = True  # the loop is closed: the server is going down


def _failed(error: KaosError) -> bytes:
    return json_line(
        {
            "end": True,
            "state": None,
            "error": {"code": error.code, "message": error.message, "hint": error.hint},
        }
    )
