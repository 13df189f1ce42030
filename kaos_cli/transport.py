"""One connection to a backend: requests, answers, and its errors decoded.

http.client and not requests: a redeploy of what is there already is three small requests, and importing
requests would take longer than all of them.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from kaos_cli import __version__
from kaos_cli.errors import ConnectionLost, KaosError
from kaos_formats.http_api import API, API_HEADER, VERSION_HEADER

Json = dict[str, Any]
READ_TIMEOUT_S = 60.0
ERROR_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a backend listens, and the secret it wants. ``local``: this command line may start it again.

    ``socket``: its Unix socket, which says who asks, so that files can be handed over; "" where there is
    none. ``ca_cert``: PEM text of what signs its certificate, "" for what the system trusts. ``context``: its
    name.
    """

    url: str
    token: str = field(repr=False)
    local: bool
    socket: str = ""
    ca_cert: str = field(default="", repr=False)
    context: str = ""


class Transport:
    """One kept-alive connection; not for several threads."""

    def __init__(self, endpoint: Endpoint, connect_timeout_s: float = 10.0) -> None:
        parts = urlsplit(endpoint.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise KaosError(
                "usage",
                f"{endpoint.url!r} is no backend address",
                hint="use http://HOST:PORT in KAOS_ENDPOINT",
            )
        self.endpoint = endpoint
        self._timeout_s = connect_timeout_s
        self._prefix = parts.path.rstrip("/") + "/v1"
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=connect_timeout_s)
        if parts.scheme == "https":
            self._connection = _secured(parts.hostname, parts.port, endpoint.ca_cert, connect_timeout_s)
        elif endpoint.socket:
            self._connection = _UnixConnection(endpoint.socket, parts.netloc, connect_timeout_s)

    def close(self) -> None:
        self._connection.close()

    def open(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float | None = READ_TIMEOUT_S,
    ) -> http.client.HTTPResponse:
        """The response to a request, its body unread. Raises KaosError for an error the backend reports,
        ConnectionLost when there is no answer."""
        sent = {
            "Authorization": f"Bearer {self.endpoint.token}",
            VERSION_HEADER: __version__,
            API_HEADER: str(API),
            "Accept-Encoding": "identity",
        } | (headers or {})
        if body is not None and not isinstance(body, bytes):
            sent["Transfer-Encoding"] = "chunked"
            body = _chunked(body)
        connection = self._connection
        refused: OSError | None = None
        try:
            if connection.sock is None:
                connection.connect()
            connection.sock.settimeout(timeout_s)
            try:
                connection.request(method, self._prefix + path, body, sent)
            except (BrokenPipeError, ConnectionResetError) as error:
                # A refused upload: the backend answered and hung up before it had read everything.
                refused = error
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as lost:
            connection.close()
            raise ConnectionLost(str(refused or lost) or type(lost).__name__) from lost
        except BaseException:
            # A half-sent request must not be followed by another one on the same connection.
            connection.close()
            raise
        if response.status >= 400:
            reported = _decode_error(response)
            connection.close()
            raise reported
        return response

    def json(
        self, method: str, path: str, body: Json | None = None, timeout_s: float = READ_TIMEOUT_S
    ) -> Json:
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if content is not None else None
        return self.read_json(self.open(method, path, content, headers, timeout_s))

    def read_json(self, response: http.client.HTTPResponse) -> Json:
        try:
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise ConnectionLost(str(error) or type(error).__name__) from error
        except ValueError as error:
            raise KaosError(
                "internal",
                f"{self.endpoint.url} did not answer in JSON",
                hint="is this a kaos backend? `kaos status` shows the address in use",
            ) from error
        assert isinstance(answer, dict)
        return answer


def _secured(host: str, port: int | None, ca_cert: str, timeout_s: float) -> http.client.HTTPConnection:
    import ssl

    context = ssl.create_default_context(cadata=ca_cert or None)
    return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket; ``host`` is what the request calls the server."""

    def __init__(self, place: str, host: str, timeout_s: float) -> None:
        super().__init__(host, timeout=timeout_s)
        self._place = place

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._place)


def _chunked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces in HTTP's chunked coding; http.client's own would copy each of them once more."""
    for piece in filter(None, pieces):  # an empty chunk would end the body
        yield b"%x\r\n" % len(piece)
        yield piece
        yield b"\r\n"
    yield b"0\r\n\r\n"


def _decode_error(response: http.client.HTTPResponse) -> KaosError:
    try:
        raw = response.read(ERROR_LIMIT_BYTES)
    except (OSError, http.client.HTTPException):
        raw = b""
    try:
        error = json.loads(raw)["error"]
        return KaosError(
            str(error["code"]), str(error["message"]), hint=str(error.get("hint") or ""), **_fields(error)
        )
    except (ValueError, KeyError, TypeError):
        text = raw[:200].decode(errors="replace").strip()
        return KaosError(
            "internal",
            f"the backend answered {response.status} {response.reason}" + (f": {text}" if text else ""),
            hint="its log is $KAOS_HOME/logs/backend.log",
        )


def _fields(error: Json) -> Json:
    fields = error.get("fields")
    # Named like KaosError's own parameters, these could not be passed on.
    return (
        {k: v for k, v in fields.items() if k not in ("code", "message", "hint")}
        if isinstance(fields, dict)
        else {}
    )
