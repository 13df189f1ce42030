"""What has changed behind a manifest, asked in a process of its own as other programs ask."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from kaos_pipelines.fetch.check import CheckFailed, _ask, check

from kaos_formats.manifest import Fetched
from tests.support.gitserver import Repository, git_server
from tests.support.webserver import WebServer
from tests.unit.pipelines.fetch.conftest import Fetching


def test_what_changed_is_told_and_nothing_is_fetched(
    fetching: Fetching, web: WebServer, tmp_path: Path
) -> None:
    names = ("same", "other", "gone", "silent", "smaller", "forbidden", "empty")
    for name in names:
        web.put(
            f"/{name}", name.encode() * 100_000, etag=None if name in ("silent", "smaller") else "by content"
        )
    web.pages["/empty"].body = b""
    (tmp_path / "local").write_bytes(b"1")
    with git_server(tmp_path / "repositories") as server:
        repository = Repository(server.root, "r")
        repository.commit(a=b"1")
        lines = [{"url": web.url(f"/{name}"), "path": name} for name in names]
        lines += [
            {"url": f"file://{tmp_path}/local", "path": "z-local"},
            {"url": server.url("r") + "#a", "path": "z-moved"},
            {"url": server.url("r") + "#a", "path": "z-pinned", "rev": repository.git("rev-parse", "HEAD")},
        ]
        sources = fetching.sources(fetching(*lines))
        web.pages["/other"].body += b"more"
        del web.pages["/gone"]
        web.pages["/smaller"].body = b""
        web.pages["/forbidden"].statuses = [403]
        repository.commit(a=b"2")
        sent = web.sent
        found = {one.path: one for one in check(sources, {})}
    assert {path: one.state for path, one in found.items()} == {
        "same": "same", "other": "changed", "gone": "gone", "silent": "unknown", "smaller": "changed",
        "forbidden": "unknown", "empty": "same", "z-local": "same", "z-moved": "changed", "z-pinned": "same",
    }  # fmt: skip
    assert list(found) == [one.path for one in sources]
    assert "403" in found["forbidden"].why
    assert web.sent - sent < 100


def test_the_guard_holds_for_checks(web: WebServer) -> None:
    web.put("/a", b"inside")
    sources = [Fetched(web.url("/a"), "a", 6, "0" * 64), Fetched("file:///etc/passwd", "b", 6, "0" * 64)]
    found = asyncio.run(_ask(sources, {"KAOS_FETCH_PRIVATE": "0"}))
    assert ["not public" in found[0].why, "its own machine" in found[1].why] == [True, True]
    assert {one.state for one in found} == {"unknown"}
    assert web.requests == []


def test_what_cannot_be_asked_at_all_is_told() -> None:
    with pytest.raises(CheckFailed, match="KAOS_FETCH_PARALLEL is 'x'"):
        check([], {"KAOS_FETCH_PARALLEL": "x"})
