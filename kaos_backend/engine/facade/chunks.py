"""Content over HTTP, for the references that ReadFilesetCDR gives out.

A reference (`cdr.Ref`) names where the bytes of a file can be fetched by plain GET, as pachd's name presigned
URLs of its object store. Here it is this server, on the loopback interface like the engine itself. A URL is
signed and good for an hour; it gives a piece of one object, and nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.store.store import Store

CHUNK_BYTES = 8 << 20
"""A reference is to at most this many bytes: clients hold one in memory."""
_GOOD_FOR_S = 3600
# How long a collection waits for a reader.
_PATIENCE_S = 30.0
_PATH = re.compile(r"/chunks/([0-9a-f]{64})/(\d{1,19})/(\d{1,10})/(\d{1,12})/([0-9a-f]{64})")


class ChunkServer:
    """Serves pieces of objects. It listens from the first URL that is asked for until `stop`."""

    def __init__(self, store: Store, host: str = "127.0.0.1") -> None:
        self._store = store
        self._host = host
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None

    def url(self, object_: bytes, offset: int, length: int) -> str:
        """Where `length` bytes of an object from `offset` on can be fetched."""
        until = int(time.time()) + _GOOD_FOR_S
        server = self._listening()
        sign = self._signature(object_.hex(), offset, length, until)
        return (
            f"http://{self._host}:{server.server_port}/chunks/"
            f"{object_.hex()}/{offset}/{length}/{until}/{sign}"
        )

    def stop(self) -> None:
        with self._lock:
            if self._server is not None:
                self._server.shutdown()
                self._server.server_close()
                self._server = None

    def _listening(self) -> ThreadingHTTPServer:
        with self._lock:
            if self._server is None:
                self._server = _Server((self._host, 0), self._handler())
                threading.Thread(target=self._server.serve_forever, name="chunks", daemon=True).start()
            return self._server

    def _signature(self, object_: str, offset: int, length: int, until: int) -> str:
        text = f"{object_}/{offset}/{length}/{until}"
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()

    def _read(self, path: str) -> tuple[int, Iterator[bytes]] | None:
        """(length, bytes) of what a path names; None when it was not given out by this server, or is too old.

        Raises EngineError when the content is damaged or gone.
        """
        match = _PATH.fullmatch(path)
        if match is None:
            return None
        object_, offset, length, until = match[1], int(match[2]), int(match[3]), int(match[4])
        if not hmac.compare_digest(match[5], self._signature(object_, offset, length, until)):
            return None
        if until < time.time():
            return None
        return length, cut(self._store.read_object(bytes.fromhex(object_), offset), length)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        read, lease = self._read, partial(self._store.leases.take, _PATIENCE_S)

        class Handler(BaseHTTPRequestHandler):
            timeout = 60

            def do_GET(self) -> None:
                with lease():
                    self._answer()

            def _answer(self) -> None:
                try:
                    found = read(self.path)
                    if found is None:
                        self.send_error(403, "no reference of this server, or one that is no longer good")
                        return
                    length, pieces = found
                    first = next(pieces, b"")
                except EngineError as error:
                    self.send_error(410, error.message)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "application/octet-stream")
                self.send_header("Content-Length", str(length))
                self.end_headers()
                try:
                    self.wfile.write(first)
                    for piece in pieces:
                        self.wfile.write(piece)
                except (EngineError, OSError):
                    # The reader sees that it has not got all of it.
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: the engine's standard error is nobody's."""

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True


def cut(pieces: Iterator[bytes], length: int) -> Iterator[bytes]:
    """The first `length` bytes of a stream."""
    for piece in pieces:
        yield piece[:length]
        length -= len(piece)
        if length <= 0:
            return
