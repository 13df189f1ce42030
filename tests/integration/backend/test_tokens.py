"""Tokens: whose they are, what they are good for, and when they end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import requests

from kaos_backend.tokens import Tokens
from tests.support.backend import Backend
from tests.support.waiting import eventually


class Colleague:
    """Somebody with a token."""

    def __init__(self, backend: Backend, name: str, **request: Any) -> None:
        self.name = name
        self._url = backend.url
        made = backend.call("POST", "/tokens", 201, json={"name": name, "rights": "write", **request})
        self.token = made["token"]
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.headers["Authorization"] = f"Bearer {self.token}"

    def ask(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        return self._http.request(method, self._url + path, timeout=30, **kwargs)

    def code(self, method: str, path: str, **kwargs: Any) -> str:
        """The error's, "" where there is none."""
        answer = self.ask(method, path, **kwargs)
        return "" if answer.ok else str(answer.json()["error"]["code"])


@pytest.fixture
def revoking(backend: Backend) -> Iterator[None]:
    yield
    for token in backend.call("GET", "/tokens")["tokens"]:
        backend.call("DELETE", f"/tokens/{token['name']}")


def test_every_route_says_what_it_needs_and_is_refused_without(backend: Backend, revoking: None) -> None:
    ann = Colleague(backend, "ann", rights="read", workspaces=["hers"])
    for path, methods in backend.app.openapi()["paths"].items():
        for method, described in methods.items():
            right, scope = described["x-kaos-right"], described["x-kaos-scope"]
            assert right in ("read", "write", "admin", "owner"), (method, path)
            assert (scope == "workspace") == ("{workspace}" in path), (method, path)
            for name in ("x", "hers"):
                concrete = path.removeprefix("/v1").replace("{workspace}", name).replace("{trial}", "0")
                allowed = right == "read" and (scope == "any" or (scope == "workspace" and name == "hers"))
                refused = ann.code(method, concrete.replace("{", "").replace("}", "")) == "not_allowed"
                assert refused != allowed, (method, path, name)


def test_a_route_that_does_not_say_so_is_a_mistake() -> None:
    from kaos_backend.api.operations import Operations

    with pytest.raises(AssertionError, match="needs"):
        Operations({"paths": {"/v1/new": {"get": {"operationId": "new"}}}})


def test_the_name_of_the_token_is_the_author(backend: Backend, revoking: None) -> None:
    name = backend.workspace("authored")
    ben = Colleague(backend, "ben", workspaces=[name])
    deployed = backend.deploy_all(name)
    assert ben.ask("POST", f"/workspaces/{name}/jobs/{deployed['job']}/stop?author=somebody").ok
    assert backend.wait(name, deployed["job"])["reason"].startswith(("stopped by ben", "the build"))
    grid = {"hyper": {"lr": [0.5]}, "author": "somebody"}
    assert ben.ask("POST", f"/workspaces/{name}/deploys", json=grid).ok
    assert backend.call("GET", f"/workspaces/{name}")["hyper"]["author"] == "ben"


def test_what_is_not_of_ones_workspaces_is_not_told(backend: Backend, revoking: None) -> None:
    for name in ("mine", "theirs"):
        backend.workspace(name)
    cat = Colleague(backend, "cat", workspaces=["mine", "later"])
    assert [one["name"] for one in cat.ask("GET", "/workspaces").json()["workspaces"]] == ["mine"]
    assert list(cat.ask("GET", "/disk").json()["workspaces"]) in (["mine"], [])
    assert cat.code("GET", "/workspaces/theirs") == cat.code("GET", "/workspaces/nowhere") == "not_allowed"
    assert cat.code("POST", "/workspaces", json={"name": "other", "description": ""}) == "not_allowed"
    assert cat.code("POST", "/workspaces", json={"name": "later", "description": ""}) == ""
    for where in ("theirs", None):
        assert cat.code("POST", "/pause", json={"workspace": where, "paused": True}) == "not_allowed"
    assert cat.code("DELETE", "/workspaces/later") == "not_allowed"
    backend.deploy_all("theirs")
    assert cat.ask("GET", "/status").json()["jobs"] == []


def test_tokens_are_kept_hashed_and_end_when_revoked(backend: Backend, revoking: None) -> None:
    dan = Colleague(backend, "dan", rights="admin")
    kept = backend.home / "tokens.json"
    assert dan.token not in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert dan.ask("GET", "/health").json()["caller"] == {
        "name": "dan", "rights": "admin", "workspaces": None, "expires": None,
    }  # fmt: skip
    assert dan.code("POST", "/tokens", json={"name": "eve", "rights": "read"}) == ""
    assert dan.code("POST", "/tokens", json={"name": "eve", "rights": "read"}) == "exists"
    assert dan.code("POST", "/tokens", json={"name": "../x", "rights": "read"}) == "invalid_name"
    assert dan.code("POST", "/tokens", json={"name": "none", "workspaces": []}) == "invalid_request"
    assert dan.code("DELETE", "/tokens/nobody") == "no_such_token"
    # What is answered was on the disk.
    again = Tokens(kept, lambda: datetime.now(UTC))
    assert again.caller(dan.token.encode()).name == "dan"
    backend.call("DELETE", "/tokens/dan")
    assert dan.code("GET", "/health") == "unauthorized"


def test_one_that_has_expired_is_refused_and_says_so(backend: Backend, revoking: None) -> None:
    fay = Colleague(backend, "fay", expires_s=0.5)
    eventually(lambda: fay.code("GET", "/health") == "unauthorized")
    assert "has expired" in fay.ask("GET", "/health").json()["error"]["message"]


@pytest.mark.parametrize("ends", ["revoked", "expired"])
def test_a_stream_ends_with_its_token(backend: Backend, revoking: None, ends: str) -> None:
    name = backend.workspace(f"followed-{ends}")
    backend.call("POST", "/pause", json={"workspace": name, "paused": True})
    backend.deploy_all(name)
    gil = Colleague(backend, "gil", rights="read", expires_s=1 if ends == "expired" else None)
    with gil.ask("GET", f"/workspaces/{name}/jobs/last/logs?follow=true", stream=True) as answer:
        lines = answer.iter_lines()
        assert b"waiting" in next(lines)
        if ends == "revoked":
            threading.Thread(target=backend.call, args=("DELETE", "/tokens/gil")).start()
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            list(lines)
    if ends == "expired":
        assert gil.code("GET", "/health") == "unauthorized"


def test_a_file_that_is_broken_lets_nobody_in(backend: Backend) -> None:
    path = backend.home / "broken.json"
    path.write_text('{"version": 1, "tokens": [{"name": "x"}]}')
    broken = Tokens(path, lambda: datetime.now(UTC))
    assert "cannot be read" in broken.problem
    with pytest.raises(Exception, match=r"broken\.json cannot be read"):
        broken.create("x", "read", None, None, "")
    assert "x" in path.read_text()
