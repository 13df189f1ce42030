"""A backend that others can reach leads nobody into its own network: real connections, on loopback."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any

import pytest
from kaos_pipelines.fetch import guard
from kaos_pipelines.fetch.errors import FetchError, FetchFailed
from kaos_pipelines.fetch.guard import Policy

from kaos_formats.addresses import is_public
from tests.support.webserver import WebServer, web_server
from tests.unit.pipelines.fetch.conftest import Fetching

SHARED = Policy.of({"KAOS_FETCH_PRIVATE": "0"})


def allowing(text: str) -> Policy:
    return Policy.of({"KAOS_FETCH_PRIVATE": "0", "KAOS_FETCH_ALLOW": text})


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """What a name server answers, one answer after the other, the last one again and again."""
    answers: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def lookup(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in answers:
            return real(host, port, *args, **kwargs)
        found = answers[name].pop(0) if len(answers[name]) > 1 else answers[name][0]
        return [entry for one in found for entry in real(one, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return answers


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0.0.0.0",
        "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]",
    ],
)  # fmt: skip
def test_no_way_of_writing_an_address_leads_inside(fetching: Fetching, web: WebServer, host: str) -> None:
    web.put("/a", b"inside")
    fetching.policy = SHARED
    with pytest.raises(FetchFailed, match=r"is not public|cannot be read as a URL"):
        fetching({"url": web.url("/a", host), "path": "a"})
    assert web.requests == []


def test_the_address_that_is_looked_at_is_the_one_that_is_connected_to(
    fetching: Fetching, web: WebServer, names: dict[str, list[list[str]]]
) -> None:
    """A name that leads elsewhere each time it is looked up."""
    web.put("/a", b"inside")
    names["rebinding.test"] = [["93.184.216.34"], ["127.0.0.1"]]
    fetching.policy = SHARED
    assert guard.addresses_of("rebinding.test", 80, SHARED) == [ip_address("93.184.216.34")]
    with pytest.raises(FetchFailed, match=r"127\.0\.0\.1 is not public"):
        fetching({"url": web.url("/a", "rebinding.test"), "path": "a"})
    assert web.requests == []


def test_redirects_are_looked_at_too(fetching: Fetching, web: WebServer) -> None:
    with web_server() as inner:
        web.put("/a", statuses=[302], headers={"Location": inner.url("/b")})
        inner.put("/b", b"inside")
        fetching.policy = allowing(f"127.0.0.1:{web.port}")
        with pytest.raises(FetchFailed, match="is not public"):
            fetching({"url": web.url("/a"), "path": "a"})
        assert (len(web.requests), inner.requests) == (1, [])


def test_a_public_server_leads_nobody_inside_even_for_the_owner_of_the_machine(
    fetching: Fetching, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.put("/a", statuses=[302], headers={"Location": web.url("/b")})
    web.put("/b", b"inside")
    line = {"url": web.url("/a", "localhost"), "path": "a"}
    monkeypatch.setattr("kaos_pipelines.fetch.web.is_public", lambda _: True)
    with pytest.raises(FetchFailed, match=r"a public server leads to 127\.0\.0\.1"):
        fetching(line)
    monkeypatch.setattr("kaos_pipelines.fetch.web.is_public", is_public)
    web.pages["/a"].statuses.append(302)
    assert fetching.file("a", fetching(line)) == b"inside"


@pytest.mark.parametrize("allowed", ["127.0.0.0/8", "localhost", "127.0.0.1:{port}", "10.0.0.0/8,127.0.0.1"])
def test_what_is_allowed_by_name_may_be_asked(fetching: Fetching, web: WebServer, allowed: str) -> None:
    web.put("/a", b"inside")
    fetching.policy = allowing(allowed.format(port=web.port))
    assert fetching.file("a", fetching({"url": web.url("/a"), "path": "a"})) == b"inside"


def test_an_allowed_port_is_that_port_only(fetching: Fetching, web: WebServer) -> None:
    fetching.policy = allowing(f"localhost:{web.port - 1}")
    with pytest.raises(FetchFailed, match="is not public"):
        fetching({"url": web.url("/a"), "path": "a"})


def test_through_a_proxy_a_name_leads_no_further_than_is_known_here(
    fetching: Fetching, web: WebServer, monkeypatch: pytest.MonkeyPatch, names: dict[str, list[list[str]]]
) -> None:
    monkeypatch.setenv("http_proxy", web.url(""))
    monkeypatch.setenv("no_proxy", "")
    names["inner.test"] = [["10.0.0.1"]]
    names["outer.test"] = [["93.184.216.34"]]
    web.put("http://outer.test/a", b"outside")
    web.put("http://inner.test/a", b"inside")
    fetching.policy = Policy.of({"KAOS_FETCH_PRIVATE": "0", "http_proxy": web.url("")})
    assert fetching.file("a", fetching({"url": "http://outer.test/a", "path": "a"})) == b"outside"
    with pytest.raises(FetchFailed, match=r"10\.0\.0\.1 is not public"):
        fetching({"url": "http://inner.test/a", "path": "a"})
    assert [one.path for one in web.requests] == ["http://outer.test/a"]


def test_no_files_of_the_machine(fetching: Fetching) -> None:
    fetching.policy = SHARED
    with pytest.raises(FetchFailed) as caught:
        fetching(
            {"url": "file:///etc/passwd", "path": "a"},
            {"url": "git+file:///etc#x", "path": "b"},
            {"url": "git+http://127.0.0.1:1/r#x", "path": "c"},
            {"url": "git+http://2130706433:1/r#x", "path": "d"},
        )
    assert set(caught.value.problems) == {1, 2, 3, 4}
    assert "no files of its own machine" in caught.value.problems[1]
    assert "no files of its own machine" in caught.value.problems[2]
    assert "is not public" in caught.value.problems[3]
    assert "is not public" in caught.value.problems[4]


def test_any_socket_of_the_process_is_looked_at() -> None:
    with socket.socket() as server, guard.enforced(SHARED):
        server.bind(("127.0.0.1", 0))
        server.listen()
        for where in (server.getsockname(), ("localhost", server.getsockname()[1])):
            with socket.socket() as client, pytest.raises(guard.Refused):
                client.connect(where)
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(guard.Refused):
            client.connect("/nowhere")
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1::1", True), ("10.1.2.3", False), ("172.16.0.1", False),
        ("192.168.1.1", False), ("169.254.169.254", False), ("100.64.0.1", False), ("224.0.1.1", False),
        ("255.255.255.255", False), ("0.0.0.0", False), ("168.63.129.16", False), ("fd00:ec2::254", False),
        ("fe80::1", False), ("ff02::1", False), ("::ffff:10.0.0.1", False), ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False), ("64:ff9b::5db8:d822", True), ("::7f00:1", False),
    ],
)  # fmt: skip
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(ip_address(address)) is public


@pytest.mark.parametrize("text", ["10.0.0.0/33", "http://host/", "host:x", "a b/c"])
def test_an_allow_list_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(FetchError, match="KAOS_FETCH_ALLOW has"):
        allowing(text)
