"""Between asyncio and the threads that do the work: request bodies in, JSON lines out, both bounded."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, Protocol

from fastapi import Request
from fastapi.responses import StreamingResponse

from kaos_backend.errors import Internal, InvalidBundle, KaosError

MAX_BUFFERED_BYTES = 1024 * 1024
_DISCONNECT_CHECK_S = 1.0
_GATHER_S = 0.02

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
        """Some bytes, at most ``size``; b"" at the end. Raises InvalidBundle if the client went away."""
        with self._condition:
            while not self._chunks and not self._ended:
                self._condition.wait()
            if self._broken:
                raise InvalidBundle("the upload broke off", hint="deploy again")
            if not self._chunks:
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


def json_lines(reading: Closable, encode: Callable[[Any], dict[str, Any]], request: Request) -> JsonLines:
    """The answer with what ``ndjson`` makes of ``reading``, for as long as it is read."""

    async def lines() -> AsyncIterator[bytes]:
        # A generator of its own: the event loop is known only once the response is being sent.
        async for chunk in ndjson(reading, encode, request.is_disconnected):
            yield chunk

    return JsonLines(lines(), headers=NO_STORE)


async def ndjson(
    reading: Closable, encode: Callable[[Any], dict[str, Any]], disconnected: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    """The items of ``reading`` as JSON lines, iterated in a thread; closed when the client goes away.

    An error on the way ends the stream with ``{"end":true,"state":null,"error":{…}}``.
    """
    pump = _Pump(reading, encode)
    thread = threading.Thread(target=pump.run, name="json-lines", daemon=True)
    thread.start()
    try:
        while True:
            lines = await pump.take(_DISCONNECT_CHECK_S)
            if lines is None:
                return
            if lines:
                yield b"".join(lines)
            elif await disconnected():
                return
    finally:
        pump.stop()
        reading.close()


class _Pump:
    def __init__(self, reading: Iterable[Any], encode: Callable[[Any], dict[str, Any]]) -> None:
        self._reading = reading
        self._encode = encode
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._condition = threading.Condition()
        self._lines: list[bytes] = []
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
            self._wake()

    async def take(self, timeout_s: float) -> list[bytes] | None:
        """The lines that are there, [] after ``timeout_s`` without any, None at the end."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        except TimeoutError:
            return []
        # Lines that come one by one would each become an answer of its own, with all that sending one takes.
        await asyncio.sleep(_GATHER_S)
        self._ready.clear()
        with self._condition:
            lines, self._lines, self._buffered = self._lines, [], 0
            self._condition.notify()
            if not lines and self._ended:
                return None
            if self._ended:
                self._ready.set()
        return lines

    def stop(self) -> None:
        with self._condition:
            self._stopped = True
            self._condition.notify()

    def _put(self, value: dict[str, Any]) -> bool:
        line = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
        with self._condition:
            while self._buffered >= MAX_BUFFERED_BYTES and not self._stopped:
                self._condition.wait()
            if self._stopped:
                return False
            self._lines.append(line)
            self._buffered += len(line)
            first = len(self._lines) == 1
        if first:
            self._wake()
        return True

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._ready.set)
        except RuntimeError:
            self.stop()  # the loop is closed: the server is going down


def _failed(error: KaosError) -> dict[str, Any]:
    return {
        "end": True,
        "state": None,
        "error": {"code": error.code, "message": error.message, "hint": error.hint},
    }
