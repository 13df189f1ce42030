"""The HTTP server: uvicorn, with limits on what a connection may cost before the application sees a request.

uvicorn bounds neither the headers nor the time that they take, nor for how long an answer may be left unread.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from kaos_backend.api import errors
from kaos_backend.errors import Busy, HeadersTooLarge, InvalidRequest, KaosError, RequestTimeout
from kaos_backend.settings import Limits
from kaos_backend.tls import Certificate, Doorstep

# Requests that a client may send ahead of the answers to earlier ones; ours sends none.
_PIPELINED = 8
_TICKS_PER_LOOK = 5


@dataclass(frozen=True, slots=True)
class Public:
    """Where others reach a backend; without a ``certificate`` in plain HTTP."""

    listener: socket.socket
    certificate: Certificate | None

    @property
    def names(self) -> frozenset[str]:
        """Host names that it may be asked for."""
        return frozenset() if self.certificate is None else self.certificate.names


class Server(uvicorn.Server):
    """Looks after its connections twice a second. ``public``: where others reach it, beside the sockets that
    it is run with, which are private.
    """

    def __init__(self, app: ASGIApp, limits: Limits, public: Public | None = None, **options: Any) -> None:
        protocol = functools.partial(Connection, limits=limits)
        self._limits = limits
        self._public = public
        self._answering: asyncio.Task[None] | None = None
        super().__init__(
            uvicorn.Config(
                app, http=cast(Any, protocol), log_config=None, access_log=False, ws="none",
                server_header=False, timeout_keep_alive=60, **options,
            )
        )  # fmt: skip

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_PER_LOOK == 0:
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                cast(Connection, connection).look(now)
            if self._public is not None and self._public.certificate is not None:
                self._public.certificate.renew()
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started and self._public is not None:
            await self._serve_others(self._public)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._answering is not None:
            self._answering.cancel()
        if self._public is not None:
            self._public.listener.close()
        await super().shutdown(sockets=sockets)

    async def _serve_others(self, public: Public) -> None:
        def connection() -> asyncio.Protocol:
            return Connection(
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
                limits=self._limits,
                public=public,
            )

        loop = asyncio.get_running_loop()
        if public.certificate is None:
            self.servers.append(await loop.create_server(connection, sock=public.listener))
        else:
            doorstep = Doorstep(public.certificate, self._limits, connection)
            self._answering = loop.create_task(doorstep.answer(public.listener))


class Connection(HttpToolsProtocol):
    """One connection. What it refuses itself is answered like all errors, and closes it."""

    def __init__(self, *args: Any, limits: Limits, public: Public | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._public = public
        self._refused: KaosError | None = None
        # Bytes since the last that meant something: unfinished headers, or what lies between parts of a body.
        self._unparsed = 0
        self._head_since: float | None = None
        self._quiet_since = 0.0
        self._unsent = 0
        self._unsent_since = 0.0
        self._same_user = False

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._same_user = _peer_uid(transport) == os.geteuid()
        self._head_since = self._quiet_since = time.monotonic()
        others = [cast(Connection, c) for c in self.connections if not c.transport.is_closing()]
        if len(others) <= self._limits.connections:
            return
        # Who keeps a connection without asking for anything makes room for who may.
        if waiting := [one for one in others if one is not self and one.idle]:
            min(waiting, key=lambda one: one._quiet_since).transport.abort()
        else:
            self._refuse(Busy(f"all {self._limits.connections} connections are in use"))

    def data_received(self, data: bytes) -> None:
        self._unparsed += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._unparsed > self._limits.head_bytes:
            self._refuse(_head_too_large(self._limits.head_bytes))
        elif self.idle and self._head_since is None:
            self._head_since = time.monotonic()

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= _PIPELINED:
            self._refused = InvalidRequest(
                f"more than {_PIPELINED} requests were sent ahead of their answers"
            )
            raise self._refused
        super().on_message_begin()
        self.scope["state"]["same_user"] = self._same_user
        self.scope["state"]["public"] = self._public

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= self._limits.headers:
            self._refused = HeadersTooLarge(
                f"the request has more than {self._limits.headers} headers", limit=self._limits.headers
            )
            raise self._refused
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._unparsed, self._head_since = 0, None
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unparsed = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._quiet_since = time.monotonic()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer to what its parser refuses, or what a callback of it refused."""
        self._refuse(self._refused or InvalidRequest(msg))

    def look(self, now: float) -> None:
        """Ends the connection if its client has kept it waiting too long."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent > self._unsent or unsent <= self._unsent - self._limits.stall_bytes:
            self._unsent, self._unsent_since = unsent, now
        elif now - self._unsent_since > self._limits.stall_s:
            self.transport.abort()
        if self._head_since is not None and self.idle and now - self._head_since > self._limits.head_s:
            if self._unparsed:
                self._refuse(RequestTimeout(f"no whole request came within {self._limits.head_s:g} s"))
            else:
                self.transport.close()

    def _refuse(self, error: KaosError) -> None:
        if not (self.cycle is None or self.cycle.response_complete):
            # In the midst of another answer there is no place for this one.
            self.transport.abort()
            return
        content = json.dumps(errors.body(error)).encode()
        headers = (
            errors.headers(error)
            | errors.said()
            | {
                "Content-Type": "application/json",
                "Content-Length": str(len(content)),
                "Connection": "close",
            }
        )
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(STATUS_LINE[error.http_status] + lines.encode() + b"\r\n" + content)
        self.transport.close()


def _peer_uid(transport: asyncio.Transport) -> int | None:
    """Of the process at the other end of a Unix socket; None for other connections, which cannot tell."""
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family != socket.AF_UNIX:
        return None
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


def _head_too_large(most: int) -> HeadersTooLarge:
    return HeadersTooLarge(f"the request's line and headers have more than {most} bytes", limit=most)
