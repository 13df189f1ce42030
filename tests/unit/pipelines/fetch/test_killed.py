"""The program itself, killed by SIGKILL within a large file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kaos_pipelines.fetch.cache import hash_of
from kaos_pipelines.fetch.main import main

from kaos_formats.manifest import MANIFEST_FILE
from tests.support.webserver import WebServer

SIZE = 224 << 20
HELD_AT = 208 << 20


def start(pfs: Path, cache: Path, **env: str) -> subprocess.Popen[str]:
    settings = {"PACH_PFS": str(pfs), "KAOS_FETCH_CACHE": str(cache), **env}
    return subprocess.Popen(
        [sys.executable, "-m", "kaos_pipelines.fetch"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | settings,
    )


def put_manifest(pfs: Path, *lines: dict[str, object]) -> None:
    folder = pfs / "manifest" / ("0" * 32)
    folder.mkdir(parents=True)
    (folder / MANIFEST_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_fetch_that_was_killed_asks_for_the_rest_only(tmp_path: Path, web: WebServer) -> None:
    body = bytes(1 << 20) * (SIZE >> 20)
    page = web.put("/large", body, hold_at=HELD_AT, etag='"1"')
    pfs, cache = tmp_path / "pfs", tmp_path / "cache"
    put_manifest(pfs, {"url": web.url("/large"), "path": "large.bin"})
    first = start(pfs, cache)
    assert page.reached.wait(60)
    partials = cache / "partial"
    # What the server has sent and the system has not handed over yet does not count.
    while sum(path.stat().st_size for path in partials.iterdir()) < HELD_AT - (16 << 20):
        assert first.poll() is None
    first.send_signal(signal.SIGKILL)
    first.communicate()
    page.held.set()
    page.hold_at = None
    second = start(pfs, cache)
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 0, said
    _, again = web.asked("/large")
    begun = int(again.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    assert HELD_AT - (16 << 20) <= begun <= HELD_AT
    assert again.headers["If-Range"] == '"1"'
    assert "goes on after" in said
    (tree,) = (pfs / "out").glob("*.tree")
    entry = json.loads(tree.read_text())
    fetched = pfs / "out" / tree.stem / "large.bin"
    assert (entry["size"], entry["hash"]) == (SIZE, hash_of(fetched))
    with fetched.open("rb") as file:
        assert all(block == bytes(1 << 20) for block in iter(lambda: file.read(1 << 20), b""))


def test_the_last_line_of_the_log_is_the_reason(
    tmp_path: Path, web: WebServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_manifest(tmp_path / "pfs", {"url": web.url("/gone?key=hidden"), "path": "a"})
    monkeypatch.setenv("PACH_PFS", str(tmp_path / "pfs"))
    monkeypatch.setenv("KAOS_FETCH_CACHE", str(tmp_path / "cache"))
    assert main() == 1
    url = web.url("/gone")
    told = f"cannot be fetched: 1; {url}?****: status 404 Not Found"
    assert capsys.readouterr().out.splitlines()[-1] == f"kaos: 1 of 1 line(s) of the manifest {told}"
