"""The stat index: never reads what did not change, never believes what might have."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kaos_cli import bundle, index
from kaos_cli.errors import KaosError
from kaos_cli.walk import Found
from kaos_formats.tree import bundle_id
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


def test_of_a_folder_that_is_as_it_was_no_list_is_made(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read(data, cache)
    with monkeypatch.context() as patch:
        patch.setattr(bundle, "tree_pieces", lambda *_: pytest.fail("the list was made"))
        second = read(data, cache)
        assert (second.id, second.files, second.size_bytes) == (first.id, first.files, first.size_bytes)
    assert second.tree == first.tree, "it is there for who needs it"
    # As source it has a file more, which is made and not found.
    (data / "train").write_text("#!/bin/sh\n")
    (data / "train").chmod(0o755)
    (data / "requirements.txt").write_text("numpy\n")
    as_data, moment = read(data, cache), time.time_ns() + LATER_NS
    for _ in range(2):
        as_source = bundle.read(data, "source", cache, clock_ns=lambda: moment)
        assert as_source.generated is not None
        assert as_source.files == as_data.files + 1
        assert as_source.id == bundle_id(as_source.tree) != as_data.id
        assert read(data, cache).id == as_data.id


NAMES = st.sampled_from(["a", "b.txt", "deep/a", "deep/er/c.txt"])
CHANGES = st.one_of(
    st.tuples(st.sampled_from(["write", "append", "mode", "remove", "link"]), NAMES, NAMES),
    st.tuples(st.just("rename"), NAMES, NAMES),
    st.tuples(st.just("ignore"), st.sampled_from(["*.txt", "deep/", "!a", ""]), NAMES),
    st.tuples(st.just("nothing"), NAMES, NAMES),
)


def change(top: Path, what: str, name: str, other: str, size: int) -> None:
    """``size`` was never one before: what happens within a tick of the clock shows in it."""
    path = top / name
    if what == "ignore":
        (top / ".kaosignore").write_text(f"{name}\n")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if what == "write":
        path.unlink(missing_ok=True)
        path.write_bytes(bytes(size))
    elif what == "link" and not path.is_symlink() and path.exists() and not (top / "link").exists():
        (top / "link").symlink_to(path)
    elif what == "rename" and path.exists():
        (top / other).parent.mkdir(parents=True, exist_ok=True)
        path.rename(top / other)
    elif what == "append":
        with path.open("ab") as file:
            file.write(bytes(1000 * size))
    elif what == "mode" and path.exists():
        path.chmod(path.stat().st_mode ^ 0o100)
    elif what == "remove":
        path.unlink(missing_ok=True)


def seen(top: Path, cache: Path) -> tuple[str, ...]:
    try:
        found = read(top, cache)
    except KaosError as error:
        return (error.message,)
    return found.id, *found.ignored, *(entry.file.path for entry in found.entries)


@settings(max_examples=30)
@given(st.lists(CHANGES, min_size=1, max_size=12))
def test_any_change_is_noticed(changes: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as made:
        top, cache = Path(made, "d"), Path(made, "cache")
        top.mkdir()
        for number, (what, name, other) in enumerate([("write", "z", ""), *changes]):
            change(top, what, name, other, number + 1)
            assert seen(top, cache) == seen(top, Path(made, "new", str(number)))


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
    coarse = replace(fine, mtime_ns=1_000_000_000, ctime_ns=1_000_000_000)
    assert index.is_settled(fine, 1_500_000_000)
    assert not index.is_settled(coarse, 1_500_000_000)
    assert not index.is_settled(replace(fine, mtime_ns=9_000_000_000), 1_500_000_000)


def test_changed_ignore_rules_hold_for_known_files(data: Path, cache: Path) -> None:
    first = read(data, cache)
    assert first.files == 2
    (data / ".kaosignore").write_text("*.txt\n")
    assert read(data, cache).files == 1
    (data / ".kaosignore").write_text("deep/\n")
    assert [e.file.path for e in read(data, cache).entries] == ["a.txt"]
    (data / ".kaosignore").unlink()
    assert read(data, cache).id == first.id


@given(
    st.dictionaries(st.integers(0, 9), st.integers(0, 1)),
    st.dictionaries(st.integers(0, 9), st.integers(0, 1)),
    st.sampled_from([1, 2, 3, 1000]),
)
def test_what_is_as_it_was_and_what_is_gone(
    before: dict[int, int], after: dict[int, int], at_a_time: int
) -> None:
    def found(files: dict[int, int]) -> list[Found]:
        return [Found(f"f{name}", 1, time, 0, 0, False) for name, time in sorted(files.items())]

    hashes = [bytes([name]) * index.HASH_BYTES for name in sorted(before)]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "_FILES_A_LOOK", at_a_time)
        path = Path(folder) / "index"
        index.save(path, "", "", b"".join(hashes), found(before))
        known, gone = index.load(path).compare(found(after))
    assert gone == {f"f{name}" for name in before.keys() - after.keys()}
    assert [bool(hash_) for hash_ in known] == [before.get(name) == after[name] for name in sorted(after)]
    assert all(not hash_ or hash_[0] == name for hash_, name in zip(known, sorted(after), strict=True))
