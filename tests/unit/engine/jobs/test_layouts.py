"""Versions of inputs on the disk: what they share, what may be written to, which go when there is no room."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kaos_backend.engine.detect import inputs_limit
from kaos_backend.engine.errors import DataLoss, DiskFull, InvalidArgument
from kaos_backend.engine.jobs.run.inputs import InputCache, NeverFits
from kaos_backend.engine.jobs.run.laidout import Entry
from kaos_backend.engine.store.check import findings
from kaos_backend.engine.store.store import Store
from tests.support.inputs import (
    MIB,
    Version,
    disk_bytes,
    laid_out,
    prepared,
    used_once,
    version,
)

BIG = os.urandom(3 * MIB)
CONTENT = {f"/{n // 20}/{n}.txt": b"%d" % n * 500 for n in range(100)} | {"/big": BIG, "/log": b"a line\n"}
SHARED = pytest.mark.parametrize("shared", [True, False], ids=["shared", "private"])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "engine")
    yield opened
    opened.close()


def cache_of(store: Store, limit_bytes: int | None = None, wanted: set[str] | None = None) -> InputCache:
    cache = InputCache(store, store.root / "trees", limit_bytes=limit_bytes, wanted=lambda: wanted or set())
    cache.open()
    return cache


@SHARED
def test_a_line_more_costs_kilobytes(store: Store, shared: bool) -> None:
    cache = cache_of(store)
    used_once(cache, version(store, CONTENT), shared=shared)
    more = version(store, CONTENT | {"/log": b"a line\nand another\n"})
    before = disk_bytes(store.root)
    folder = used_once(cache, more, shared=shared)
    assert laid_out(folder) == more.content
    assert disk_bytes(store.root) - before < 100 * 1024


@SHARED
def test_versions_whose_folder_is_called_after_them(store: Store, shared: bool) -> None:
    cache = cache_of(store)
    first = version(store, {f"/{'a' * 32}{path}": body for path, body in CONTENT.items()}, f"/{'a' * 32}/")
    changed = {path: body for path, body in CONTENT.items() if path != "/0/0.txt"} | {"/new/x": b"x"}
    second = version(store, {f"/{'b' * 32}{path}": body for path, body in changed.items()}, f"/{'b' * 32}/")
    used_once(cache, first, shared=shared)
    before = disk_bytes(store.root)
    assert laid_out(used_once(cache, second, shared=shared)) == second.content
    assert disk_bytes(store.root) - before < 100 * 1024
    assert laid_out(used_once(cache, first, shared=shared)) == first.content


def test_large_files_are_the_stores_where_nobody_writes(store: Store) -> None:
    made = version(store, CONTENT)
    inode = store.objects.inode(store.stat(made.root, "/big").hash)
    cache = cache_of(store)
    assert (used_once(cache, made, shared=True) / "big").stat().st_ino == inode
    assert (used_once(cache, made, shared=False) / "big").stat().st_ino != inode


def test_as_many_names_as_an_inode_can_have(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_of(store)
    used_once(cache, version(store, CONTENT), shared=True)
    more = version(store, CONTENT | {"/log": b""})

    def too_many(*_: object, **__: object) -> None:
        raise OSError(errno.EMLINK, "Too many links")

    monkeypatch.setattr(os, "link", too_many)
    assert laid_out(used_once(cache, more, shared=True)) == more.content


def test_what_a_trial_may_write_to_is_nobody_elses(store: Store) -> None:
    cache = cache_of(store)
    first, second = version(store, CONTENT), version(store, CONTENT | {"/log": b"changed\n"})
    job = cache.lend(shared=False)
    folder = prepared(job, first)
    other = used_once(cache, second, shared=False)
    for name in ("log", "big", "0/0.txt"):
        (folder / name).chmod(0o644)
        (folder / name).write_bytes(b"written by a trial")
    assert laid_out(other) == second.content
    job.close()
    assert laid_out(used_once(cache, version(store, CONTENT | {"/log": b""}), shared=False)) == {
        **CONTENT,
        "/log": b"",
    }
    assert laid_out(used_once(cache, first, shared=False)) == first.content
    assert findings(store) == []


def damaged(store: Store, made: Version) -> Path:
    """Another byte in the middle of the large file of a store."""
    path = store.objects.loose_path(store.stat(made.root, "/big").hash)
    with path.open("r+b") as file:
        file.seek(MIB)
        file.write(b"#" if BIG[MIB : MIB + 1] != b"#" else b"+")
    assert [found.object for found in findings(store)] == [store.stat(made.root, "/big").hash]
    return path


def test_a_damaged_object_is_in_no_tree(store: Store) -> None:
    made = version(store, CONTENT)
    cache = cache_of(store)
    old = used_once(cache, made, shared=True)
    damaged(store, made)
    with pytest.raises(DataLoss, match="/big"):
        used_once(cache, made, shared=True)
    version(store, {"/again": BIG})
    assert findings(store) == []
    new = used_once(cache, made, shared=True)
    assert laid_out(new) == made.content
    assert not old.exists()


def test_a_healed_object_is_not_taken_from_an_older_tree(store: Store) -> None:
    made = version(store, CONTENT)
    cache = cache_of(store)
    used_once(cache, made, shared=True)
    damaged(store, made)
    version(store, {"/again": BIG})
    more = version(store, CONTENT | {"/log": b""})
    folder = used_once(cache, more, shared=True)
    assert laid_out(folder) == more.content
    assert (folder / "big").stat().st_ino == store.objects.inode(store.stat(made.root, "/big").hash)


def test_each_inode_counts_once(store: Store) -> None:
    cache = cache_of(store)
    used_once(cache, version(store, CONTENT), shared=True)
    used_once(cache, version(store, CONTENT | {"/log": b"new"}), shared=True)
    usage = cache.usage()
    assert len(usage) == 2
    folders = disk_bytes(*(store.root / "trees" / one.name for one in usage))
    tops, big = (
        2 * 4096,
        store.objects.loose_path(store.stat(version(store, CONTENT).root, "/big").hash).stat(),
    )
    assert sum(one.bytes for one in usage) == folders - tops - big.st_blocks * 512


def test_the_least_recently_used_goes_and_what_jobs_need_stays(store: Store) -> None:
    versions = [version(store, {"/f": bytes([n]) * 500_000}) for n in range(6)]
    wanted = {f"default/data@{versions[0].file.commit}"}
    cache = cache_of(store, limit_bytes=1_600_000, wanted=wanted)
    folders = [used_once(cache, one, shared=True) for one in versions[:3]]
    job = cache.lend(shared=True)
    assert prepared(job, versions[1]) == folders[1]
    for one in versions[3:]:
        folders.append(used_once(cache, one, shared=True))
        cache.close()
    assert [folder.exists() for folder in folders] == [True, True, False, False, False, True]
    assert sum(one.bytes for one in cache.usage()) <= 1_600_000
    job.close()
    assert cache.evict(10 * MIB) > 0
    assert [folder.exists() for folder in folders] == [True, False, False, False, False, False]


@SHARED
def test_what_nobody_needs_goes_with_its_last_user(store: Store, shared: bool) -> None:
    cache = cache_of(store)
    made = version(store, CONTENT)
    stopped, other = cache.lend(shared=shared), cache.lend(shared=shared)
    folder = prepared(stopped, made)
    assert prepared(other, made) == folder
    assert cache.discard(lambda _: True) == 0
    # Whoever has it reads on; nobody else finds it any more.
    stopped.close()
    assert laid_out(folder) == made.content
    assert used_once(cache, made, shared=shared) != folder
    other.close()
    assert not folder.exists()
    assert len(list((store.root / "trees").glob("*.seal"))) == 1
    assert cache.discard(lambda _: True) > 0
    assert cache.usage() == []


def test_what_two_datums_of_a_job_take_at_once_is_given_back_with_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cache_of(store)
    job, take, both = cache.lend(shared=True), cache.take, threading.Barrier(2, timeout=30)

    def at_once(*args: Any, **options: Any) -> Entry:
        both.wait()
        return take(*args, **options)

    monkeypatch.setattr(cache, "take", at_once)
    made = version(store, CONTENT)
    with ThreadPoolExecutor(2) as datums:
        first, second = datums.map(lambda _: prepared(job, made), range(2))
    assert first == second
    job.close()
    assert not cache.usage()[0].in_use
    assert cache.evict(10 * MIB) > 0
    assert not first.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 20 MiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(mount)]
    if subprocess.run(line, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a tmpfs")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def many(seed: int, bytes_: int) -> dict[str, bytes]:
    """Files too small for one each in the store, which are copied."""
    return {f"/{n}": bytes([seed, n]) * 250_000 for n in range(bytes_ // 500_000)}


def test_room_is_made_waited_for_and_known_never_to_come(small_disk: Path) -> None:
    store = Store.open(small_disk / "engine")
    try:
        cache = cache_of(store)
        sizes = (1 * MIB, 2 * MIB, 9 * MIB, 2 * MIB)
        first, second, large, third = (version(store, many(n, size)) for n, size in enumerate(sizes))
        job = cache.lend(shared=True)
        old = used_once(cache, first, shared=True)
        prepared(job, second)
        with pytest.raises(NeverFits, match=r"need 8.* of disk, which never fits: the disk has 20 MiB"):
            used_once(cache, large, shared=True)
        assert old.exists(), "for nothing, nothing goes"
        ballast = small_disk / "ballast"
        with pytest.raises(OSError, match="No space left"):
            ballast.write_bytes(b"\0" * (20 * MIB))
        with pytest.raises(DiskFull, match=r"its inputs need .* of disk \(.* free\)"):
            used_once(cache, third, shared=True)
        assert not old.exists(), "what no job uses makes room"
        os.truncate(ballast, ballast.stat().st_size - 2 * MIB)
        assert laid_out(used_once(cache, third, shared=True)) == third.content
        job.close()
    finally:
        store.close()


@pytest.mark.parametrize(
    ("text", "limit"), [("", 200), ("10%", 100), ("0%", 0), ("100%", 1000), ("20Gi", 20 << 30), ("0", 0)]
)
def test_the_limit_is_an_amount_or_a_share_of_the_disk(text: str, limit: int) -> None:
    assert inputs_limit({"KAOS_ENGINE_INPUTS": text}, 1000) == limit


@pytest.mark.parametrize("text", ["lots", "101%", "-1%", "1.5%", "%", "-5"])
def test_a_limit_that_makes_no_sense_is_named(text: str) -> None:
    with pytest.raises(InvalidArgument, match="KAOS_ENGINE_INPUTS"):
        inputs_limit({"KAOS_ENGINE_INPUTS": text}, 1000)


def test_of_two_that_a_crash_left_of_one_input_one_stays(store: Store) -> None:
    made = version(store, CONTENT)
    older = used_once(cache_of(store), made, shared=True)
    newer = older.with_name(f"{older.name[:-8]}{'0' * 8}")
    shutil.copytree(older, newer)
    seal = older.with_name(f"{older.name}.seal")
    newer.with_name(f"{newer.name}.seal").write_bytes(seal.read_bytes())
    os.utime(seal, (1, seal.stat().st_mtime - 60))
    cache_of(store)
    assert (older.exists(), seal.exists(), newer.exists()) == (False, False, True)
