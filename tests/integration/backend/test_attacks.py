"""The backend as a process under attack, over real sockets: it refuses before it reads, others do not notice.

Whatever is sent, its memory stays within 100 MB of what it has when idle.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from kaos_backend.settings import KIB, MIB, Limits
from tests.support.archives import archive
from tests.support.backend import DATA, DOCKERFILE, stop_engine
from tests.support.process import Process
from tests.support.waiting import eventually

MOST = 100 * 10**6
# As by default but for the times, which would make these tests slow, and what fills with much work only.
QUICK = "head_s=2,stall_s=2,body_s=2,queue_s=1,logs=4"
CHATTY = b"""#!/bin/sh
i=0; line=$(head -c 20000 /dev/zero | tr '\\0' x)
while [ $i -lt 400 ]; do echo "$i $line"; i=$((i+1)); done
"""


class Target:
    """A backend process: how much memory it takes, and raw connections to it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.token = process.headers["Authorization"]
        place = urlsplit(process.url)
        assert place.hostname is not None
        assert place.port is not None
        self.place = (place.hostname, place.port)

    def connect(self, receives: int | None = None) -> socket.socket:
        """A connection; the kernel takes in about ``receives`` bytes of what nobody reads."""
        connection = socket.socket()
        connection.settimeout(20)
        if receives is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
        connection.connect(self.place)
        return connection

    def serves(self, connection: socket.socket) -> bool:
        """Whether the backend has its end of a connection open."""
        backend = psutil.Process(self.process.process.pid)
        return connection.getsockname() in {one.raddr for one in backend.net_connections("tcp") if one.raddr}

    def head(self, method: str, path: str, *headers: str, token: bool = True) -> bytes:
        """The beginning of a request, without the empty line that ends it."""
        lines = [f"{method} /v1{path} HTTP/1.1", "Host: localhost", *headers]
        lines += [f"Authorization: {self.token}"] * token
        return "\r\n".join(lines).encode() + b"\r\n"

    def ask(self, *pieces: bytes, rest: Iterable[bytes] = ()) -> tuple[int, dict[str, Any]]:
        """Sends until everything is sent or the backend hangs up; the status and body of its answer."""
        with self.connect() as connection:
            with contextlib.suppress(ConnectionError):
                for piece in (*pieces, *rest):
                    connection.sendall(piece)
            return answer(connection)

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Asserts that memory stays within 100 MB of what it is now, all the while and afterwards."""
        backend = psutil.Process(self.process.process.pid)
        idle = peak = backend.memory_info().rss
        done = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.005):
                peak = max(peak, backend.memory_info().rss)

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            yield
        finally:
            done.set()
            watching.join()
        assert peak - idle < MOST, f"{idle / 1e6:.0f} MB when idle, {peak / 1e6:.0f} MB under attack"


def answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """The status and JSON body of an answer that ends the connection, or has all arrived."""
    raw = b""
    with contextlib.suppress(ConnectionError):
        while b"\r\n\r\n" not in raw or len(raw.partition(b"\r\n\r\n")[2]) < length(raw):
            if not (data := connection.recv(65536)):
                break
            raw += data
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head, "hung up without an answer"
    return int(head.split()[1]), json.loads(body)


def length(raw: bytes) -> int:
    fields = dict(line.lower().split(b": ", 1) for line in raw.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:])
    return int(fields[b"content-length"])


def send_all(connection: socket.socket, piece: bytes, total: int) -> None:
    for one in endless(piece, total):
        connection.sendall(one)


def endless(piece: bytes, total: int) -> Iterator[bytes]:
    for _ in range(total // len(piece)):
        yield piece


def chunked(piece: bytes, total: int) -> Iterator[bytes]:
    return endless(b"%x\r\n%b\r\n" % (len(piece), piece), total)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    home = tmp_path_factory.mktemp("home")
    process = Process(home, KAOS_LIMITS=QUICK).wait()
    try:
        # What only the first requests make (modules, pools, the OpenAPI document) is no cost of an attack.
        for path in ("/status", "/workspaces/default/jobs", "/openapi.json"):
            process.request("GET", path).raise_for_status()
        process.request(
            "POST", "/workspaces/default/deploys", json={"hyper": {"a": [1, 2]}}
        ).raise_for_status()
        yield Target(process)
    finally:
        process.end()
        stop_engine(home)


def check_others_are_served(target: Target) -> None:
    for path in ("/health", "/workspaces", "/workspaces/default"):
        assert target.process.request("GET", path).status_code == 200


BODY = 1_500_000_000
PIECE = bytes(MIB)


@pytest.mark.parametrize(
    ("headers", "token", "code"),
    [
        ((f"Content-Length: {BODY}", "Content-Type: application/json"), False, "unauthorized"),
        ((f"Content-Length: {BODY}", "Content-Type: text/plain"), True, "body_too_large"),
        ((f"Content-Length: {BODY}", "Content-Type: application/json"), True, "body_too_large"),
        ((f"Content-Length: {9 * 10**17}", "Content-Type: application/json"), True, "body_too_large"),
        (("Content-Length: 100", "Content-Type: text/plain"), True, "unsupported_media_type"),
        (("Content-Length: 100",), True, "unsupported_media_type"),
        (("Content-Length: 100", "Content-Type: application/json", "Origin: http://x.y"), True, "forbidden"),
    ],
)
def test_a_body_is_refused_by_its_headers(
    target: Target, headers: tuple[str, ...], token: bool, code: str
) -> None:
    """The answer comes before a byte of the body was sent; sent all the same, it is not taken in."""
    head = target.head("POST", "/workspaces", *headers, token=token) + b"\r\n"
    assert target.ask(head)[1]["error"]["code"] == code
    if f"Content-Length: {BODY}" in headers:
        with target.measured():
            assert target.ask(head, rest=endless(PIECE, BODY))[1]["error"]["code"] == code
            check_others_are_served(target)


def test_a_body_of_unknown_length_ends_at_the_limit(target: Target) -> None:
    head = target.head("POST", "/workspaces", "Transfer-Encoding: chunked", "Content-Type: application/json")
    with target.measured():
        status, body = target.ask(head, b"\r\n", rest=chunked(b" " * 65536, BODY))
    assert (status, body["error"]["fields"]) == (413, {"limit": Limits().body_bytes})
    status, body = target.ask(
        target.head("GET", "/workspaces", "Transfer-Encoding: chunked"), b"\r\n", b"1\r\nx\r\n"
    )
    assert (status, body["error"]["code"]) == (413, "body_too_large")
    head = target.head("POST", "/workspaces", "Transfer-Encoding: chunked", token=False)
    with target.measured():
        assert target.ask(head, b"\r\n", rest=chunked(bytes(65536), BODY))[0] == 401


@pytest.mark.parametrize(
    ("begin", "piece", "status"),
    [
        (b"GET /v1/health HTTP/1.1\r\nX: ", b"x" * 65536, 431),
        (b"GET /v1/health HTTP/1.1\r\n", b"a:\r\n" * 16384, 431),
        (b"GET /v1/health HTTP/1.1\r\n", (b"a" * 1000 + b": b\r\n") * 64, 431),
        (b"GET /v1/", b"x" * 65536, 431),
        (b"", b"\r\n" * 32768, 431),
    ],
    ids=["value", "count", "names", "path", "blank"],
)
def test_headers_without_end(target: Target, begin: bytes, piece: bytes, status: int) -> None:
    with target.measured():
        found, body = target.ask(begin, rest=endless(piece, 300_000_000))
    assert found == status
    assert body["error"]["fields"]["limit"]


def test_sizes_of_whole_headers(target: Target) -> None:
    for path, name in ((f"/{'x' * 3000}", "path"), (f"/health?{'x' * 5000}", "query")):
        status, body = target.ask(target.head("GET", path), b"\r\n")
        assert status == 414
        assert name in body["error"]["message"]
    status, body = target.ask(target.head("GET", "/health", "X: " + "x" * 17_000), b"\r\n")
    assert (status, body["error"]["fields"]) == (431, {"limit": 16 * KIB})
    status, body = target.ask(target.head("GET", "/health", *(f"X{i}: y" for i in range(70))), b"\r\n")
    assert (status, body["error"]["fields"]) == (431, {"limit": 64})


def test_what_lies_between_the_parts_of_a_body_is_bounded(target: Target) -> None:
    """Extensions of chunks, and trailers: the headers have passed, so that only the connection can end."""
    bundle = f"/workspaces/default/bundles/data/{'a' * 32}?name=x"
    head = (
        target.head("PUT", bundle, "Transfer-Encoding: chunked", "Content-Type: application/zstd") + b"\r\n"
    )
    with target.measured():
        for begin, piece in ((b"1;", b"x" * 65536), (b"1\r\nx\r\n0\r\n", b"t: y\r\n" * 10_000)):
            with target.connect() as connection:
                connection.sendall(head + begin)
                with pytest.raises(ConnectionError):
                    send_all(connection, piece, 300_000_000)
    check_others_are_served(target)


def test_requests_sent_ahead_of_answers_are_bounded(target: Target) -> None:
    with target.measured():
        for _ in range(20):
            with target.connect() as connection, contextlib.suppress(ConnectionError):
                for _ in range(50):
                    connection.sendall(b"GET / HTTP/1.1\r\n\r\n" * 14_000)
    check_others_are_served(target)


def test_slow_headers_take_no_place_from_others(target: Target) -> None:
    """More connections than there may be, none of which ever ends its headers."""
    with contextlib.ExitStack() as stack, target.measured():
        slow = [stack.enter_context(target.connect()) for _ in range(Limits().connections * 2)]
        for connection in slow:
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"GET /v1/health HTTP/1.1\r\nX: " + b"x" * 20_000)
        check_others_are_served(target)
        # Each is ended: those that were pushed out, and the rest when their time is over.
        for connection in slow:
            with contextlib.suppress(ConnectionError):
                while connection.recv(65536):
                    pass
        check_others_are_served(target)


def test_a_slow_body_ends_in_time(target: Target) -> None:
    head = target.head("POST", "/workspaces", "Content-Length: 10", "Content-Type: application/json")
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(target.connect()) for _ in range(Limits().calls * 2)]
        for connection in slow:
            connection.sendall(head + b"\r\n{")
        check_others_are_served(target)
        for connection in slow:
            assert answer(connection)[1]["error"]["code"] == "request_timeout"


def test_idle_uploads_leave_the_rest_alone(target: Target) -> None:
    def upload(number: int) -> bytes:
        bundle = f"/workspaces/default/bundles/data/{number:032x}?name=x"
        return (
            target.head("PUT", bundle, "Content-Length: 1000000", "Content-Type: application/zstd") + b"\r\n"
        )

    bundle_id, body = archive(DATA)
    url = f"/workspaces/default/bundles/data/{bundle_id}?name=x"
    with contextlib.ExitStack() as stack, target.measured():
        idle = [stack.enter_context(target.connect()) for _ in range(48)]
        for number, connection in enumerate(idle):
            connection.sendall(upload(number))
        for _ in range(20):
            check_others_are_served(target)
        target.process.request("DELETE", f"/workspaces/default/bundles/data/{47:032x}").raise_for_status()
        # Those with a place time out, those in line find none in time: each is told.
        codes = {answer(connection)[1]["error"]["code"] for connection in idle}
        assert codes == {"request_timeout", "busy"}
        # They have their answers a moment before their places are free, longer than one second waits for one
        # on a machine that is busy otherwise: so we do as the refusal tells us to.
        eventually(lambda: _accepted(target.process.request("PUT", url, data=body)))
    target.process.request("DELETE", url.partition("?")[0]).raise_for_status()


def _accepted(answer: requests.Response) -> bool:
    """Whether an upload was taken in; if not, then because there was no place for it yet."""
    assert answer.status_code == 201 or answer.json()["error"]["code"] == "busy", answer.text
    return answer.status_code == 201


def test_a_call_does_not_wait_for_an_upload(target: Target) -> None:
    bundle = f"/workspaces/default/bundles/data/{'c' * 32}"
    head = target.head("PUT", bundle + "?name=x", "Content-Length: 99", "Content-Type: application/zstd")
    with target.connect() as connection:
        connection.sendall(head + b"\r\n")
        check_others_are_served(target)
        # Its client has less time left than this one waits.
        target.process.request("DELETE", bundle).raise_for_status()
        assert answer(connection)[1]["error"]["code"] == "request_timeout"


def test_large_bodies_do_not_add_up(target: Target) -> None:
    """The JSON that takes most to parse for its size, from many clients at once."""
    body = b'{"hyper": {"a": [' + b"[]," * 120_000 + b"[]]}}"
    found: list[int] = []

    def deploy() -> None:
        head = target.head(
            "POST",
            "/workspaces/default/deploys",
            f"Content-Length: {len(body)}",
            "Content-Type: application/json",
        )
        found.append(target.ask(head, b"\r\n", body)[0])

    with target.measured():
        clients = [threading.Thread(target=deploy) for _ in range(24)]
        for client in clients:
            client.start()
        check_others_are_served(target)
        for client in clients:
            client.join()
    assert set(found) <= {400, 503}
    assert 400 in found


def test_readers_that_do_not_read(target: Target) -> None:
    """Logs of 8 MB, followed by clients that take none of it: cut off, while others read them."""
    process = target.process
    process.request("POST", "/workspaces", json={"name": "chatty"}).raise_for_status()
    deploy = {}
    for kind, files in (("source", {"Dockerfile": DOCKERFILE, "train": CHATTY}), ("data", DATA)):
        deploy[kind], content = archive(files)
        url = f"/workspaces/chatty/bundles/{kind}/{deploy[kind]}?name=x"
        process.request("PUT", url, data=content).raise_for_status()
    process.request("POST", "/workspaces/chatty/deploys", json=deploy).raise_for_status()
    url = "/workspaces/chatty/jobs/last"
    eventually(lambda: process.request("GET", url).json()["finished"], timeout_s=60)
    head = target.head("GET", url + "/logs?follow=true") + b"\r\n"
    with contextlib.ExitStack() as stack, target.measured():
        deaf = [stack.enter_context(target.connect(receives=4096)) for _ in range(4)]
        for connection in deaf:
            connection.sendall(head)
        check_others_are_served(target)
        # All places for logs are taken until those who do not read are cut off.
        eventually(lambda: process.request("GET", url + "/logs?tail=1").status_code == 200, timeout_s=50)
        # One that reads before its turn to be cut off has come is deaf no more.
        eventually(lambda: not any(map(target.serves, deaf)), timeout_s=50)
        for connection in deaf:
            raw = b""
            with contextlib.suppress(ConnectionError):
                while data := connection.recv(MIB):
                    raw += data
            assert b'"end":true' not in raw[-200:]
    lines = process.request("GET", url + "/logs").text.splitlines()
    assert json.loads(lines[-1])["end"] is True
    assert len(lines) > 400
