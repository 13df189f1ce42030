"""As much of Google's and Microsoft's object stores as reading takes, on loopback: Google's JSON API v1 and
Azure's Blob service. Amazon's has a server of its own (moto).
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


class ObjectStores:
    """`objects`: content by "bucket/key"."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.site = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def azure(self) -> str:
        """A connection string."""
        key = b64encode(b"key").decode()
        return f"AccountName=ours;AccountKey={key};BlobEndpoint={self.url}/ours"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def object_stores() -> Iterator[ObjectStores]:
    stores = ObjectStores()
    try:
        yield stores
    finally:
        stores.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    site: ObjectStores


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.server.site.requests.append(self.path)
        google = re.fullmatch(r"(?:/download)?/storage/v1/b/([^/]+)/o(?:/(.+))?", parts.path)
        if google:
            self._google(google[1], unquote(google[2] or ""), query)
        else:
            _, _, bucket, *key = unquote(parts.path).split("/", 3)
            self._azure(bucket, key[0] if key else "", query)

    def _google(self, bucket: str, key: str, query: dict[str, str]) -> None:
        objects = self.server.site.objects
        if not key:
            start = f"{bucket}/{query.get('prefix', '')}"
            found = [name.partition("/")[2] for name in sorted(objects) if name.startswith(start)]
            self._answer(200, json.dumps({"items": [self._about(bucket, name) for name in found]}).encode())
        elif f"{bucket}/{key}" not in objects:
            self._answer(404, b'{"error": {"code": 404, "message": "No such object"}}')
        elif query.get("alt") == "media":
            self._content(objects[f"{bucket}/{key}"])
        else:
            self._answer(200, json.dumps(self._about(bucket, key)).encode())

    def _about(self, bucket: str, key: str) -> dict[str, str]:
        body = self.server.site.objects[f"{bucket}/{key}"]
        md5 = b64encode(hashlib.md5(body).digest()).decode()
        return {
            "kind": "storage#object", "bucket": bucket, "name": key, "size": str(len(body)),
            "etag": f"E{md5}", "md5Hash": md5, "generation": str(len(body)), "updated":
            "1994-11-06T08:49:37Z",
        }  # fmt: skip

    def _azure(self, container: str, key: str, query: dict[str, str]) -> None:
        objects = self.server.site.objects
        if query.get("comp") == "list":
            start = f"{container}/{query.get('prefix', '')}"
            names = [name.partition("/")[2] for name in sorted(objects) if name.startswith(start)]
            blobs = "".join(
                f"<Blob><Name>{escape(name)}</Name><Properties><Etag>{self._tag(container, name)}</Etag>"
                f"<Content-Length>{len(objects[f'{container}/{name}'])}</Content-Length>"
                f"<Last-Modified>{_DATE}</Last-Modified><BlobType>BlockBlob</BlobType></Properties></Blob>"
                for name in names
            )
            head = f'<EnumerationResults ContainerName="{container}">'
            text = f"{head}<Blobs>{blobs}</Blobs><NextMarker/></EnumerationResults>"
            self._answer(200, text.encode(), {"Content-Type": "application/xml"})
        elif f"{container}/{key}" not in objects:
            self._answer(404, b"", {"x-ms-error-code": "BlobNotFound"})
        else:
            self._content(
                objects[f"{container}/{key}"],
                {"ETag": self._tag(container, key), "x-ms-blob-type": "BlockBlob", "Last-Modified": _DATE},
            )

    def _tag(self, container: str, key: str) -> str:
        return "0x" + hashlib.md5(self.server.site.objects[f"{container}/{key}"]).hexdigest()

    def _content(self, body: bytes, headers: dict[str, str] | None = None) -> None:
        wanted = re.fullmatch(
            r"bytes=(\d+)-(\d*)", self.headers.get("x-ms-range") or self.headers.get("Range") or ""
        )
        if wanted is None:
            self._answer(200, body, headers)
            return
        start, end = int(wanted[1]), min(int(wanted[2] or len(body) - 1), len(body) - 1)
        told = {"Content-Range": f"bytes {start}-{end}/{len(body)}", **(headers or {})}
        self._answer(206, body[start : end + 1], told)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
