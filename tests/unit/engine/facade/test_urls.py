"""URL sources: what is fetched, where nobody is led, what ends a fetch."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address

import pytest

from kaos_backend.engine.errors import DiskFull, EngineError, InvalidArgument, Unimplemented, Unknown
from kaos_backend.engine.facade.pfs.urls import Address, Limits, Resolve, fetch, why_not

ROOM = 1 << 30


class Web(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("http://far.test")
        if path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", path.removeprefix("/to/"))
            self.end_headers()
            return
        body = {
            "/host": (self.headers["Host"] or "").encode(),
            "/auth": (self.headers["Authorization"] or "").encode(),
            "/encodings": (self.headers["Accept-Encoding"] or "").encode(),
            "/a b": b"a name with a space",
            "/long": bytes(3000),
        }.get(path.replace("%20", " "))
        self.send_response(200 if body is not None else 404)
        if path != "/long" and body is not None:
            self.send_header("Content-Length", str(len(body)))
        if path == "/host":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


class Short(Web):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(b"half")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def port() -> Iterator[int]:
    yield from serve(Web)


@pytest.fixture
def short() -> Iterator[int]:
    yield from serve(Short)


class Names:
    """Resolves names to addresses, the next of the list at each question."""

    def __init__(self, **addresses: list[str]) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[Address]:
        self.asked.append(host)
        return [ip_address(self.addresses[host.partition(".")[0]].pop(0))]


def content(url: str, limits: Limits | None = None, names: Resolve | None = None) -> bytes:
    more = {} if names is None else {"resolve": names}
    return b"".join(fetch(url, ROOM, limits or Limits(), **more))


def refusal(url: str, limits: Limits | None = None, names: Resolve | None = None) -> EngineError:
    with pytest.raises(EngineError) as caught:
        content(url, limits, names)
    return caught.value


def test_the_address_that_was_looked_at_is_the_one_that_is_asked(port: int) -> None:
    """And it is asked for the name. A second question would be answered with another address."""
    names = Names(data=["127.0.0.1", "169.254.169.254"])
    assert content(f"http://data.test:{port}/host", names=names) == f"data.test:{port}".encode()
    assert names.asked == ["data.test"]


def test_a_server_behind_a_proxy_leads_nowhere_inside(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's server is its own proxy: it is asked for the whole URL, and redirects to this machine."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    error = refusal(f"http://far.test/to/http://127.0.0.1:{port}/host")
    assert "a public server led there" in error.message


def test_redirects_are_followed_and_each_hop_is_looked_at(port: int) -> None:
    names = Names(a=["127.0.0.1"], b=["127.0.0.1"])
    assert content(f"http://a.test:{port}/to/http://b.test:{port}/a b", names=names) == b"a name with a space"
    assert names.asked == ["a.test", "b.test"]
    names = Names(a=["127.0.0.1"], b=["169.254.169.254"])
    error = refusal(f"http://a.test:{port}/to/http://b.test/latest/meta-data", names=names)
    assert "b.test is at 169.254.169.254, a link-local address" in error.message


@pytest.mark.parametrize(
    ("address", "from_public", "allowed"),
    [
        ("127.0.0.1", False, True),
        ("10.1.2.3", False, True),
        ("192.168.0.9", False, True),
        ("::1", False, True),
        ("93.184.215.14", False, True),
        ("93.184.215.14", True, True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True, True),
        ("127.0.0.1", True, False),
        ("10.1.2.3", True, False),
        ("::ffff:10.1.2.3", True, False),
        ("2002:0a01:0203::1", True, False),
        ("fd00::1", True, False),
        ("100.64.0.1", True, False),
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("fe80::1", False, False),
        ("fd00:ec2::254", False, False),
        ("100.100.100.200", False, False),
        ("168.63.129.16", False, False),
        ("224.0.0.1", False, False),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("240.0.0.1", False, False),
    ],
)
def test_addresses(address: str, from_public: bool, allowed: bool) -> None:
    assert (why_not(ip_address(address), from_public) is None) == allowed


def test_what_ends_a_fetch(port: int, short: int) -> None:
    here = f"http://127.0.0.1:{port}"
    assert "more than 1000 bytes" in refusal(f"{here}/long", Limits(size=1000)).message
    assert "not done after 0 s" in refusal(f"{here}/long", Limits(total_s=0)).message
    assert "more than 2 redirects" in refusal(f"{here}/to//to//to//to//host", Limits(redirects=2)).message
    assert "status 404" in refusal(f"{here}/none").message
    assert "names no host" in refusal("http:///path").message
    assert "error retrieving content" in refusal(f"http://127.0.0.1:{short}/").message, "less than announced"
    with pytest.raises(DiskFull, match="10 bytes"):
        list(fetch(f"http://127.0.0.1:{short}/", room=9))


def test_a_password_goes_to_its_server_and_into_no_message(port: int) -> None:
    at = f"http://me:s%40cret@127.0.0.1:{port}"
    assert content(f"{at}/auth") == b"Basic " + base64.b64encode(b"me:s@cret")
    assert content(f"{at}/to/http://localhost:{port}/auth") == b""
    assert "cret" not in refusal(f"{at}/none").message


def test_content_comes_as_the_server_has_it(port: int) -> None:
    """Also where it claims an encoding: what is stored is what was sent."""
    assert content(f"http://127.0.0.1:{port}/encodings") == b"identity"
    assert content(f"http://127.0.0.1:{port}/host") == f"127.0.0.1:{port}".encode()


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("file:///etc/passwd", InvalidArgument),
        ("s3://bucket/key", Unimplemented),
        ("gs://bucket/key", Unimplemented),
        ("gopher://x/y", Unknown),
        ("/etc/passwd", Unknown),
    ],
)
def test_schemes(url: str, kind: type[EngineError]) -> None:
    assert type(refusal(url)) is kind


@pytest.mark.parametrize(
    "url",
    [
        "http://me:s3cret@[::1/x",
        "http://me:s3cret@[::1]:99999/x",
        "http://me:s3cret@a b/x",
        "http://me:s3cret@/x",
        "http://me:s3cret@127.0.0.1:1/\r\nHost: other\0",
        "s3://me:s3cret@bucket/x",
        "gopher://me:s3cret@bucket/x",
        "http://me:s3cret@" + "a" * 300 + ".test/",
        "http://me:s3cret@\udce4.test/",
        "",
        "//x",
    ],
)
def test_what_is_no_url_is_refused_in_words(url: str) -> None:
    """And without the password that is in it."""
    assert "s3cret" not in refusal(url).message


@pytest.mark.parametrize("scheme", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_to_another_scheme(port: int, scheme: str) -> None:
    assert type(refusal(f"http://127.0.0.1:{port}/to/{scheme}")) in (InvalidArgument, Unknown)
