"""One request and its answer, as the server passes them: measured, timed, ended so that it arrives."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from kaos_backend.api import errors
from kaos_backend.errors import BodyTooLarge, InvalidRequest, KaosError, RequestTimeout
from kaos_backend.settings import KIB, Limits

_PIECE_BYTES = 64 * KIB
# What is still on its way when a request is refused is taken in a little longer: to hang up on it at once
# would take the answer away from the client.
_LINGER_S = 1.0
_LINGER_BYTES = 256 * KIB


class ClientGone(Exception):
    """The client hung up before it had sent its whole request."""


class Exchange:
    """``receive`` and ``send`` are for the application, in place of the server's."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: Limits) -> None:
        self._limits = limits
        self._receive = receive
        self._send = send
        self._most = 0
        self._taken = 0
        self._read = not _has_body(scope)
        self._replay: bytes | None = None
        self._waited_s = 0.0
        self._moved = 0
        self.started = False

    def allow(self, body_bytes: int) -> None:
        """Lets so many bytes of a body be received; none before this is called."""
        self._most = body_bytes

    async def body(self) -> bytes:
        """The whole body, which ``receive`` gives once more.

        Raises BodyTooLarge, RequestTimeout, ClientGone.
        """
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self._limits.body_s):
                while not self._read:
                    message = await self._next()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    parts.append(message.get("body", b""))
        except TimeoutError:
            raise RequestTimeout(f"the body did not come within {self._limits.body_s:g} s") from None
        self._replay = b"".join(parts)
        return self._replay

    async def receive(self) -> Message:
        """The next part of the body. Raises BodyTooLarge, RequestTimeout (see ``Limits.stall_s``)."""
        if self._replay is not None:
            whole, self._replay = self._replay, None
            return {"type": "http.request", "body": whole, "more_body": False}
        if self._read:
            return await self._receive()
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(max(0.0, self._limits.stall_s - self._waited_s)):
                message = await self._next()
        except TimeoutError:
            raise RequestTimeout(
                f"the client sent less than {self._limits.stall_bytes} bytes in {self._limits.stall_s:g} s",
                hint="try again",
            ) from None
        self._waited_s += loop.time() - began
        self._moved += len(message.get("body", b""))
        if self._moved >= self._limits.stall_bytes:
            self._waited_s, self._moved = 0.0, 0
        return message

    async def send(self, message: Message) -> None:
        """Sends in pieces, so that an answer is held no longer than the client takes it."""
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            headers.update(errors.said())
            if not self._read:
                headers["Connection"] = "close"
            await self._send(message)
            return
        if message["type"] != "http.response.body":
            await self._send(message)
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        for start in range(0, len(body) - _PIECE_BYTES, _PIECE_BYTES):
            piece = body[start : start + _PIECE_BYTES]
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        rest = body[(len(body) - 1) // _PIECE_BYTES * _PIECE_BYTES :] if body else b""
        linger = not more and not self._read
        await self._send({"type": "http.response.body", "body": rest, "more_body": more or linger})
        if linger:
            await self._drain()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def refuse(self, error: KaosError) -> None:
        """Answers with an error, in place of the application."""
        content = json.dumps(errors.body(error)).encode()
        headers = {"content-type": "application/json", "content-length": str(len(content))}
        headers |= errors.headers(error)
        encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": error.http_status, "headers": encoded})
        await self.send({"type": "http.response.body", "body": content})

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._read = True
            return message
        self._taken += len(message.get("body", b""))
        if self._taken > self._most:
            raise too_large(self._most)
        self._read = not message.get("more_body", False)
        return message

    async def _drain(self) -> None:
        dropped = 0
        try:
            async with asyncio.timeout(_LINGER_S):
                while not self._read and dropped < _LINGER_BYTES:
                    message = await self._receive()
                    dropped += len(message.get("body", b""))
                    self._read = not message.get("more_body", False)
        except TimeoutError:
            return


def too_large(most: int) -> KaosError:
    """What is said of a body of more than ``most`` bytes."""
    if not most:
        return BodyTooLarge("this request takes no body", limit=0)
    return BodyTooLarge(f"the body has more than {most} bytes", limit=most)


def content_length(headers: list[tuple[bytes, bytes]]) -> int | None:
    """The announced length of the body in bytes. Raises InvalidRequest for what is no length."""
    for name, value in headers:
        if name == b"content-length":
            if not value.isdigit() or len(value) > 18:
                raise InvalidRequest("Content-Length is no number of bytes")
            return int(value)
    return None


def _has_body(scope: Scope) -> bool:
    headers: list[tuple[bytes, Any]] = scope["headers"]
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0")
        for name, value in headers
    )
