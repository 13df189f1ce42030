"""No room left: DiskFull, nothing half-visible, and all is well once there is room again."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaos_backend.engine.errors import DiskFull
from kaos_backend.engine.store.bytes.disk import Disk
from kaos_backend.engine.store.check import findings
from kaos_backend.engine.store.store import Store

from .conftest import DATA, content, put

MEGABYTE = 1 << 20


class FullDisk(Disk):
    """Runs out of room after `room` bytes."""

    def __init__(self) -> None:
        self.room = 10**12

    def write(self, fd: int, data: bytes | bytearray | memoryview) -> None:
        self.room -= len(data)
        if self.room < 0:
            raise self.explain(OSError(errno.ENOSPC, "no space"), None)
        super().write(fd, data)

    def copy(self, source: int, target: int, offset: int, length: int) -> int:
        self.room -= length
        if self.room < 0:
            raise self.explain(OSError(errno.ENOSPC, "no space"), None)
        return super().copy(source, target, offset, length)


@pytest.mark.parametrize("size", [100_000, 900_000, 3 * MEGABYTE])
def test_no_room_for_objects(tmp_path: Path, size: int) -> None:
    disk = FullDisk()
    store = Store.open(tmp_path / "engine", disk=disk)
    with store.write() as txn:
        txn.create_repo(DATA)
    kept = put(store, {"/kept": b"k" * 100_000})
    disk.room = size // 2
    with pytest.raises(DiskFull, match="free some space and try again"):
        put(store, {"/big": os.urandom(size)})
    assert [one.key for one in store.list_commits(DATA)] == [kept]
    assert list(store.objects.tmp.iterdir()) == []
    assert findings(store) == []
    disk.room = 10**12
    again = put(store, {"/big": b"b" * size})
    assert content(store, again) == {"/kept": b"k" * 100_000, "/big": b"b" * size}
    store.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("part", [700_000, 6 * MEGABYTE])
def test_no_room_for_an_append(tmp_path: Path, part: int) -> None:
    """The whole that an append makes is an object of its own, written while the transaction is open."""
    disk = FullDisk()
    store = Store.open(tmp_path / "engine", disk=disk)
    with store.write() as txn:
        txn.create_repo(DATA)
    kept = put(store, {"/file": b"a" * part})
    counts = set()
    for _ in range(3):
        disk.room = part + MEGABYTE
        with pytest.raises(DiskFull):
            put(store, {"/file": os.urandom(part)})
        assert list(store.objects.tmp.iterdir()) == []
        counts.add(descriptors())
    assert len(counts) == 1, "none is left open each time"
    assert content(store, kept) == {"/file": b"a" * part}
    store.close()


def test_no_room_for_a_large_object_in_one_piece(tmp_path: Path) -> None:
    disk = FullDisk()
    store = Store.open(tmp_path / "engine", disk=disk)
    before = descriptors()
    disk.room = MEGABYTE
    with store.upload() as upload, pytest.raises(DiskFull):
        upload.batch.add(os.urandom(2 * MEGABYTE))
    assert list(store.objects.tmp.iterdir()) == []
    assert descriptors() == before
    store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(mount)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("this user may not mount a tmpfs")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_file_system_that_is_really_full(small_disk: Path) -> None:
    store = Store.open(small_disk / "engine")
    with store.write() as txn:
        txn.create_repo(DATA)
    kept = put(store, {"/kept": b"k" * 100_000})
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(b"\0" * 9 * MEGABYTE)
    for files in (
        {"/small": b"s" * 30_000},
        {"/middle": os.urandom(500_000)},
        {"/large": os.urandom(2 * MEGABYTE)},
    ):
        with pytest.raises(DiskFull):
            put(store, files)
    assert content(store, kept) == {"/kept": b"k" * 100_000}, "reading goes on"
    ballast.unlink()
    assert len(store.list_commits(DATA)) == 1
    again = put(store, {"/large": b"l" * 2 * MEGABYTE, "/small": b"s" * 30_000})
    assert content(store, again)["/large"] == b"l" * 2 * MEGABYTE
    assert findings(store) == []
    store.close()
