"""The stat index: never reads what did not change, never believes what might have."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from kaos_cli import bundle, index
from kaos_cli.walk import Found
from tests.support.bundles import write_data

LATER_NS = 3_600_000_000_000


def read(folder: Path, cache: Path, at_ns: int | None = None) -> bundle.Bundle:
    """Read as if the walk had started an hour from now: every file is settled then."""
    moment = time.time_ns() + LATER_NS if at_ns is None else at_ns
    return bundle.read(folder, "data", cache, clock_ns=lambda: moment)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "d")


def test_second_read_opens_no_file(data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(data, cache)
    assert first.reused == 0
    monkeypatch.setattr(bundle, "hash_file", lambda *_: pytest.fail("a file was read"))
    second = read(data, cache)
    assert (second.reused, second.id) == (2, first.id)


def test_only_what_changed_is_read(data: Path, cache: Path) -> None:
    first = read(data, cache)
    (data / "a.txt").write_bytes(b"ONE\n")
    second = read(data, cache)
    assert second.reused == 1
    assert second.id != first.id


def test_same_size_and_mtime_is_not_believed(data: Path, cache: Path) -> None:
    """`touch -d` can hide a change from size and mtime, but not from the change time."""
    first = read(data, cache)
    before = (data / "a.txt").stat()
    # The clock that stamps files ticks every few ms.
    while (data / "probe").exists() or not _ticked(data / "probe", before.st_ctime_ns):
        pass
    (data / "a.txt").write_bytes(b"ONE\n")
    os.utime(data / "a.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
    second = read(data, cache)
    assert second.id != first.id


def _ticked(probe: Path, since_ns: int) -> bool:
    probe.write_text("")
    ticked = probe.stat().st_ctime_ns > since_ns
    probe.unlink()
    return ticked


def test_file_as_young_as_the_walk_is_read_again(data: Path, cache: Path) -> None:
    """It could change once more within the clock's tick, without a trace."""
    started = max(path.stat().st_ctime_ns for path in data.rglob("*")) + index.TICK_NS // 2
    assert read(data, cache, started).reused == 0
    assert read(data, cache, started).reused == 0
    assert read(data, cache).reused == 0
    assert read(data, cache).reused == 2


def test_new_and_deleted_files_are_seen(data: Path, cache: Path) -> None:
    first = read(data, cache)
    (data / "new").write_bytes(b"")
    second = read(data, cache)
    assert (second.files, second.reused) == (first.files + 1, first.files)
    (data / "new").unlink()
    assert read(data, cache).id == first.id


def test_renamed_over_by_another_of_same_size_is_seen(data: Path, cache: Path) -> None:
    first = read(data, cache)
    before = (data / "a.txt").stat()
    (data / "other").write_bytes(b"ONE\n")
    os.utime(data / "other", ns=(before.st_atime_ns, before.st_mtime_ns))
    (data / "other").rename(data / "a.txt")
    assert read(data, cache).id != first.id


def test_mode_is_never_cached(data: Path, cache: Path) -> None:
    first = read(data, cache)
    (data / "a.txt").chmod(0o755)
    assert read(data, cache).id != first.id


@pytest.mark.parametrize("damage", [b"", b"x", bytes(200)])
def test_damaged_index_is_no_index(data: Path, cache: Path, damage: bytes) -> None:
    first = read(data, cache)
    index.path_of(cache, data).write_bytes(damage)
    assert read(data, cache).id == first.id


def test_flipped_bit_is_noticed(data: Path, cache: Path) -> None:
    first = read(data, cache)
    path = index.path_of(cache, data)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    again = read(data, cache)
    assert (again.reused, again.id) == (0, first.id)


def test_cache_that_cannot_be_written_is_no_reason_to_fail(data: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    assert read(data, cache).files == 2


def test_whole_second_stamps_need_more_distance() -> None:
    fine = Found("f", 1, 1_000_000_001, 1_000_000_001, 1, False)
    coarse = fine._replace(mtime_ns=1_000_000_000, ctime_ns=1_000_000_000)
    assert index.is_settled(fine, 1_500_000_000)
    assert not index.is_settled(coarse, 1_500_000_000)
    assert not index.is_settled(fine._replace(mtime_ns=9_000_000_000), 1_500_000_000)


def test_changed_ignore_rules_hold_for_known_files(data: Path, cache: Path) -> None:
    first = read(data, cache)
    assert first.files == 2
    (data / ".kaosignore").write_text("*.txt\n")
    assert read(data, cache).files == 1
    (data / ".kaosignore").write_text("deep/\n")
    assert [e.file.path for e in read(data, cache).entries] == ["a.txt"]
    (data / ".kaosignore").unlink()
    assert read(data, cache).id == first.id
