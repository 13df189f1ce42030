"""A port of this machine (loopback only) that leads to one where a pipeline's code listens."""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
_CONNECT_S = 5.0
_CHUNK = 1 << 16

# Host and port that are behind it now; None while nothing listens.
Target = Callable[[], tuple[str, int] | None]


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, target: Target) -> None:
        self.target = target
        self._open: set[socket.socket] = set()
        self._ended = False
        self._lock = threading.Lock()
        super().__init__((HOST, port), _Handler)

    def keep(self, *connections: socket.socket) -> bool:
        """Count connections among those that end with the port; False when it has ended by now."""
        with self._lock:
            self._open.update(connections)
            return not self._ended

    def end(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def end_all(self) -> None:
        with self._lock:
            self._ended = True
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, _request: Any, _client: Any) -> None:
        log.debug("a connection to a service broke", exc_info=True)


class _Handler(socketserver.BaseRequestHandler):
    server: _Server
    request: socket.socket

    def handle(self) -> None:
        behind = self.server.target()
        if behind is None:
            return
        try:
            other = socket.create_connection(behind, _CONNECT_S)
        except OSError:
            return  # it does not listen yet, or any more: the caller sees its connection closed
        other.settimeout(None)
        try:
            if self.server.keep(other, self.request):
                _pump(self.request, other)
        finally:
            self.server.end(other)
            self.server.end(self.request)


def _pump(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes both ways until both sides have ended; an end is passed on, too."""
    # Each way a thread: neither waits for the other side to read.
    back = threading.Thread(target=_copy, args=(other, one), daemon=True)
    back.start()
    _copy(one, other)
    back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(_CHUNK):
            target.sendall(data)
    except OSError:
        # One that broke off is over for both, both ways.
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
    else:
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextmanager
def forwarding(port: int, target: Target) -> Iterator[None]:
    """Pass what connects to `port` on to the target, until the block ends.

    Raises:
        OSError: the port is taken, or not this user's to take.
    """
    server = _Server(port, target)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name=f"port-{port}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        server.end_all()
        thread.join()
