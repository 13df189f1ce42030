"""The cache, shared by processes, on a disk that ends."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

import pytest
from kaos_pipelines.fetch.cache import Cache, Said
from kaos_pipelines.fetch.errors import Stopped

from tests.support.webserver import WebServer
from tests.unit.pipelines.fetch.conftest import Fetching
from tests.unit.pipelines.fetch.test_killed import put_manifest, start

LARGE = os.urandom(3 << 20)


def test_two_processes_that_want_the_same_fetch_it_once(tmp_path: Path, web: WebServer) -> None:
    page = web.put("/a", LARGE, hold_at=1 << 20)
    line = {"url": web.url("/a"), "path": "a"}
    for name in ("one", "two"):
        put_manifest(tmp_path / name, line)
    first = start(tmp_path / "one", tmp_path / "cache")
    assert page.reached.wait(60)
    second = start(tmp_path / "two", tmp_path / "cache", PYTHONUNBUFFERED="1")
    assert second.stdout is not None
    said = ""
    while "waits for another fetch" not in said:
        said += second.stdout.readline()
        assert second.poll() is None, said
    page.held.set()
    assert [process.wait(60) for process in (first, second)] == [0, 0]
    for process in (first, second):
        process.communicate()
    ways = [one.headers.get("If-None-Match") for one in web.asked("/a")]
    assert ways == [None, page.tag()]
    assert web.sent == len(LARGE)
    assert len({path.name for path in tmp_path.glob("*/out/*.tree")}) == 1


def test_many_small_files(fetching: Fetching, web: WebServer) -> None:
    """As 10,000 are: figures in docs/manifests.md."""
    lines = []
    for number in range(100):
        web.put(f"/{number}", b"%d" % number)
        lines.append({"url": web.url(f"/{number}"), "path": f"{number % 10}/{number}"})
    tree = fetching(*lines)
    assert fetching.files(tree) == {f"{n % 10}/{n}": b"%d" % n for n in range(100)}
    assert len(web.requests) == 100


def test_a_disk_without_room_stops_everything_and_says_so(
    fetching: Fetching, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.put("/a", LARGE)
    web.put("/b", LARGE)
    lines = [{"url": web.url(f"/{name}"), "path": name} for name in "ab"]
    fetching(lines[0])
    full = True
    monkeypatch.setattr("kaos_pipelines.fetch.cache._free", lambda _: 0 if full else 1 << 40)
    with pytest.raises(Stopped, match="No space left on device"):
        fetching(lines[1])
    # What could be given up was.
    assert not list((fetching.cache / "contents").glob("??/*"))
    full = False
    assert fetching.file("b", fetching(lines[1])) == LARGE


def test_what_had_not_reached_the_disk_when_the_machine_crashed_is_fetched_again(tmp_path: Path) -> None:
    import asyncio

    async def partials() -> list[int]:
        cache = Cache(tmp_path)
        try:
            async with cache.turn("key") as partial:
                if not partial.size:
                    partial.restart(Said(100, '"1"'))
                    partial.write(b"x" * 40)
                    partial.sync()
                    partial.write(b"x" * 20)
                return [partial.size]
        finally:
            cache.close()

    assert asyncio.run(partials()) == [60]
    assert asyncio.run(partials()) == [60]
    with sqlite3.connect(tmp_path / "index.sqlite") as db:
        db.execute("UPDATE partials SET boot = 'another'")
    db.close()
    assert asyncio.run(partials()) == [40]


def test_an_index_of_a_later_version_is_begun_anew(tmp_path: Path) -> None:
    Cache(tmp_path).close()
    with sqlite3.connect(tmp_path / "index.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    cache = Cache(tmp_path)
    assert cache.known("x") is None
    cache.close()


def test_contents_are_given_up_while_others_use_the_cache(fetching: Fetching, web: WebServer) -> None:
    """Each fetch trims to nothing what another one is about to use."""
    for number in range(40):
        web.put(f"/{number}", b"%d" % number * 1000)
    lines = [{"url": web.url(f"/{number}"), "path": f"{number}"} for number in range(40)]
    stop = threading.Event()

    def trim() -> None:
        cache = Cache(fetching.cache)
        while not stop.wait(0.001):
            cache.trim(0)
        cache.close()

    thread = threading.Thread(target=trim)
    thread.start()
    try:
        assert len(fetching.files(fetching(*lines))) == 40
    finally:
        stop.set()
        thread.join()
