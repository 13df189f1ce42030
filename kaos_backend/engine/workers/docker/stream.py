"""A hijacked connection of the Docker engine's API: bytes in, frames of stdout and stderr out.

Format: https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerAttach
(eight bytes of header, `[stream, 0, 0, 0, size as big-endian uint32]`, and the payload).
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from typing import Any

_HEADER = struct.Struct(">BxxxL")
_CHUNK = 1 << 16


class Stream:
    """Takes over what `exec_start(socket=True)` or `attach_socket` of the `docker` package returned."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._socket: socket.socket = raw._sock
        self._socket.setblocking(False)
        # The engine's first bytes may have come with its answer's header.
        self._data = bytearray(raw._response.raw._fp.fp.peek())
        self._to_send = memoryview(b"")
        self._closing = False
        self.ended = False
        """Nothing more will come."""

    def send(self, data: bytes, *, last: bool = False) -> None:
        """Queue `data`; with `last` its end is the end of the other side's input."""
        self._to_send = memoryview(bytes(self._to_send) + data)
        self._closing = self._closing or last
        self._write()

    def receive(self, timeout_s: float) -> bytes:
        """What has come, of both streams in the order in which it came; b"" when nothing has in time.

        Sends what is queued meanwhile. Raises OSError when the connection breaks.
        """
        return b"".join(payload for _, payload in self.frames(timeout_s))

    def frames(self, timeout_s: float) -> list[tuple[int, bytes]]:
        """As `receive`, each piece with its stream: 1 is stdout, 2 stderr."""
        if not (found := self._frames()) and not self.ended:
            self.wait(timeout_s)
            found = self._frames()
        return found

    def wait(self, timeout_s: float, also: int | None = None) -> None:
        """Read and send what can be, waiting at most so long, and not while there is something in `also`."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._to_send else 0))
        if also is not None:
            poll.register(also, select.POLLIN)
        for fd, events in poll.poll(timeout_s * 1000):
            if fd == also:
                continue
            if events & (select.POLLOUT | select.POLLERR):
                self._write()
            if events & ~select.POLLOUT:
                self._read()

    def close(self) -> None:
        """End the connection. Idempotent."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._raw._response.close()
        self._raw.close()
        self._socket.close()

    def _write(self) -> None:
        try:
            while self._to_send:
                self._to_send = self._to_send[self._socket.send(self._to_send[:_CHUNK]) :]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):  # it reads no more, which is its right
            self._to_send = memoryview(b"")
        if self._closing:
            self._closing = False
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def _read(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        self._data += data
        self.ended = not data

    def _frames(self) -> list[tuple[int, bytes]]:
        found, at = [], 0
        while len(self._data) - at >= _HEADER.size:
            stream, size = _HEADER.unpack_from(self._data, at)
            end = at + _HEADER.size + size
            if end > len(self._data):
                break
            found.append((stream, bytes(self._data[at + _HEADER.size : end])))
            at = end
        del self._data[:at]
        return found
