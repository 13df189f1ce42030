"""Metrics on disk by content: remembered, bounded, and never worse than reading again."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import pytest

from kaos_backend import metric_cache
from kaos_backend.domain.metrics import File, Reading, read
from kaos_backend.metric_cache import MetricCache

READ = {
    "content-1": Reading({"accuracy": 0.5, "steps": 2**62, "loss": -math.inf}, ()),
    "content-2": read([File("metrics.json", 3, b"{{{")]),
    "nothing": Reading({}),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "metrics.sqlite"


def test_what_was_read_is_known_to_the_next_process(path: Path) -> None:
    MetricCache(path).put("server", READ)
    known = MetricCache(path).get("server", [*READ, "content-3"])
    assert {name: (one.metrics, list(one.notes)) for name, one in known.items()} == {
        name: (one.metrics, list(one.notes)) for name, one in READ.items()
    }
    assert known["content-2"].notes, "what could not be read is remembered as well"
    assert isinstance(known["content-1"].metrics["steps"], int)
    assert MetricCache(path).get("another server", READ) == {}


def test_another_parser_reads_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MetricCache(path).put("server", READ)
    monkeypatch.setattr(metric_cache, "PARSER", metric_cache.PARSER + 1)
    cache = MetricCache(path)
    assert cache.get("server", READ) == {}
    cache.put("server", {"content-1": Reading({"accuracy": 0.7})})
    assert cache.get("server", ["content-1"])["content-1"].metrics == {"accuracy": 0.7}


def test_deleted_while_it_is_in_use(path: Path) -> None:
    cache = MetricCache(path)
    cache.put("server", READ)
    path.unlink()
    assert cache.get("server", READ) == {}
    cache.put("server", READ)
    assert MetricCache(path).get("server", READ).keys() == READ.keys()


@pytest.mark.parametrize("garbage", [b"", b"no database at all" * 1000])
def test_garbage_is_made_anew(path: Path, garbage: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(garbage)
    cache = MetricCache(path)
    assert cache.get("server", READ) == {}
    cache.put("server", READ)
    assert cache.get("server", READ).keys() == READ.keys()


def test_cut_short_while_it_is_in_use(path: Path) -> None:
    cache = MetricCache(path)
    cache.put("server", {str(n): Reading({"a" * 200: n}) for n in range(500)})
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(8192))
    found = cache.get("server", map(str, range(500)))
    assert all(reading.metrics == {"a" * 200: int(content)} for content, reading in found.items())
    cache.put("server", READ)
    cache.put("server", READ)
    assert cache.get("server", READ).keys() == READ.keys()


def test_an_entry_that_is_not_what_was_put_in_is_not_believed(path: Path) -> None:
    MetricCache(path).put("server", READ)
    with sqlite3.connect(path) as db:
        (good,) = db.execute("SELECT reading FROM readings WHERE content = 'content-1'").fetchone()
        db.execute("UPDATE readings SET reading = ? WHERE content = 'nothing'", (good,))
        db.execute("UPDATE readings SET reading = ? WHERE content = 'content-1'", (good[:-1] + b"\0",))
        db.execute("UPDATE readings SET reading = 'text' WHERE content = 'content-2'")
    assert MetricCache(path).get("server", READ) == {}


def test_where_it_cannot_be_nothing_is_lost_but_time(path: Path) -> None:
    path.mkdir(parents=True)
    cache = MetricCache(path)
    cache.put("server", READ)
    assert cache.get("server", READ) == {}


def test_the_oldest_go_when_it_is_full(path: Path) -> None:
    cache = MetricCache(path, max_bytes=256 * 1024)
    for start in range(0, 8000, 100):
        cache.put("server", {f"{n}": Reading({"name" * 10: n}) for n in range(start, start + 100)})
    assert path.stat().st_size < 512 * 1024
    known = cache.get("server", [str(n) for n in range(8000)])
    assert "7999" in known
    assert "0" not in known
    assert len(known) > 500
