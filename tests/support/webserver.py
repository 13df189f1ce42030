"""A web server on loopback that answers as pages say: with ranges and validators, with errors, slowly and
with lies.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PIECE = 1 << 20
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class Page:
    """`statuses` are answered first, each once; then the body is: `cuts` of it (each once) end after so many
    bytes, with the connection. `held` comes after `hold_at` bytes have gone. `length` and `claims` are lies.
    """

    body: bytes = b""
    etag: str | None = "by content"
    last_modified: str = ""
    ranges: bool = True
    conditions: bool = True
    statuses: list[int] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    hold_at: int | None = None
    held: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)
    length: int | None = None
    chunked: bool = False
    range_start: int | None = None

    def tag(self) -> str | None:
        return f'"{hashlib.md5(self.body).hexdigest()}"' if self.etag == "by content" else self.etag


@dataclass(frozen=True)
class Request:
    path: str
    headers: Mapping[str, str]


class WebServer:
    """`pages` by path, those of anything else are 404; `requests` that came."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.requests: list[Request] = []
        self.sent = 0
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.site = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def put(self, path: str, body: bytes = b"", **how: Any) -> Page:
        self.pages[path] = Page(body, **how)
        return self.pages[path]

    def asked(self, path: str) -> list[Request]:
        return [one for one in self.requests if one.path == path]

    def close(self) -> None:
        for page in self.pages.values():
            page.held.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def web_server() -> Iterator[WebServer]:
    server = WebServer()
    try:
        yield server
    finally:
        server.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    site: WebServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is none of ours."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        site = self.server.site
        site.requests.append(Request(self.path, dict(self.headers.items())))
        page = site.pages.get(self.path)
        if page is None:
            self._answer(404)
        elif page.statuses:
            self._answer(page.statuses.pop(0), page.headers)
        else:
            self._page(page)

    def _answer(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _page(self, page: Page) -> None:
        marks = {"ETag": page.tag() or "", "Last-Modified": page.last_modified, **page.headers}
        marks = {name: value for name, value in marks.items() if value}
        wanted = {self.headers.get("If-None-Match"), self.headers.get("If-Modified-Since")} - {None}
        if page.conditions and wanted & {page.tag(), page.last_modified}:
            self._answer(304, marks)
            return
        start, end = self._part(page)
        self.send_response(
            206 if self.headers.get("Range") and page.ranges and (start or end < len(page.body)) else 200
        )
        if start or end < len(page.body):
            shown = start if page.range_start is None else page.range_start
            marks["Content-Range"] = f"bytes {shown}-{end - 1}/{len(page.body)}"
        if page.chunked:
            marks["Transfer-Encoding"] = "chunked"
        else:
            marks["Content-Length"] = str(end - start if page.length is None else page.length)
        for name, value in marks.items():
            self.send_header(name, value)
        self.end_headers()
        self._send(page, start, end)

    def _part(self, page: Page) -> tuple[int, int]:
        match = _RANGE.fullmatch(self.headers.get("Range") or "")
        condition = self.headers.get("If-Range")
        if not match or not page.ranges or (condition and condition not in (page.tag(), page.last_modified)):
            return 0, len(page.body)
        return int(match[1]), min(int(match[2] or len(page.body)) + bool(match[2]), len(page.body))

    def _send(self, page: Page, start: int, end: int) -> None:
        cut = page.cuts.pop(0) if page.cuts else None
        at = start
        while at < end:
            stop = min(at + _PIECE, end)
            if page.hold_at is not None and at < page.hold_at:
                stop = min(stop, page.hold_at)
            if cut is not None:
                stop = min(stop, start + cut)
            block = page.body[at:stop]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block) if page.chunked else block)
            self.server.site.sent += len(block)
            at = stop
            if cut is not None and at >= start + cut:
                self.close_connection = True
                return
            if at == page.hold_at:
                page.reached.set()
                page.held.wait()
        if page.chunked:
            self.wfile.write(b"0\r\n\r\n")
        if page.length is not None and page.length > end - start:
            self.close_connection = True
