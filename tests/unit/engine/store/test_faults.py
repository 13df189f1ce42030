"""Every call of the write and read paths to the disk fails once, in every way a disk can fail."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.store.check import findings
from kaos_backend.engine.store.model import CommitKey
from kaos_backend.engine.store.space.collect import collect
from kaos_backend.engine.store.store import Store

from .conftest import DATA, content, put
from .test_crash import orphans, with_garbage
from .test_folder import commit, lay_out, listed, take

MEGABYTE = 1 << 20
CALLS = (
    *("open", "read", "pread", "preadv", "readv", "write", "pwrite", "writev", "pwritev"),
    *("fsync", "fdatasync", "replace", "rename", "link", "mkdir", "unlink", "rmdir", "truncate", "ftruncate"),
    *(
        "copy_file_range",
        "sendfile",
        "posix_fallocate",
        "fchmod",
        "chmod",
        "stat",
        "fstat",
        "listdir",
        "scandir",
    ),
)
MOVES_BYTES = frozenset({"read", "pread", "preadv", "write", "pwrite", "copy_file_range"})
NEEDS_NO_ROOM = frozenset(
    {"read", "pread", "preadv", "readv", "unlink", "stat", "fstat", "listdir", "scandir"}
)


class Faults:
    """Counts the calls that a store makes about its own files, and lets one of them fail."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = os.fspath(root)
        self._at: int | None = None
        self._how: int | str = 0
        self.count = 0
        self.failed = ""
        # What tells whose file it is must not fail.
        self._readlink = os.readlink
        for name in CALLS:
            monkeypatch.setattr(os, name, self._failing(name, getattr(os, name)))

    def arm(self, at: int, how: int | str) -> None:
        """The `at`-th call from now on fails: with an errno, or (``"short"``) having moved half its bytes."""
        self._at, self._how, self.count, self.failed = at, how, 0, ""

    def _may_fail(self, name: str) -> bool:
        if self._how == "short":
            return name in MOVES_BYTES
        return self._how != errno.ENOSPC or name not in NEEDS_NO_ROOM

    def disarm(self) -> None:
        self._at = None

    def _ours(self, what: Any) -> bool:
        try:
            path = self._readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else os.fspath(what)
        except (OSError, TypeError):
            return False
        return isinstance(path, str) and path.startswith(self._root) and "engine.sqlite" not in path

    def _failing(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def fail_or_call(*args: Any, **kwargs: Any) -> Any:
            if self._at is None or not self._may_fail(name):
                return call(*args, **kwargs)
            if not args or not self._ours(kwargs.get("dir_fd", args[0])):
                return call(*args, **kwargs)
            self.count += 1
            if self.count != self._at:
                return call(*args, **kwargs)
            self.failed = name
            if isinstance(self._how, int):
                raise OSError(self._how, os.strerror(self._how), str(args[0]))
            return call(*_half(name, args), **kwargs)

        return fail_or_call


def _half(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments with which a call moves about half of the bytes."""
    if name == "copy_file_range":
        source, target, count, *rest = args
        return source, target, count // 2 + 1, *rest
    fd, what, *rest = args
    if isinstance(what, int):
        return fd, what // 2 + 1, *rest
    if name == "preadv":
        return fd, [what[0][: len(what[0]) // 2 + 1]], *rest
    return fd, what[: len(what) // 2 + 1], *rest


def files(seed: int) -> dict[str, bytes]:
    """What goes into the database, a pack and files of their own, and what is appended to; all new."""
    chance = random.Random(seed)
    return {
        "/tiny": chance.randbytes(100),
        **{f"/packed/{n}": chance.randbytes(40_000) for n in range(3)},
        "/large": chance.randbytes(MEGABYTE + 10),
        "/grows": chance.randbytes(MEGABYTE // 2 + 10),
    }


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def by_stream(store: Store, _: Path, new: dict[str, bytes]) -> Callable[[], CommitKey]:
    return lambda: put(store, new)


def by_folder(store: Store, top: Path, new: dict[str, bytes]) -> Callable[[], CommitKey]:
    lay_out(top, {path.lstrip("/"): data for path, data in new.items()})
    found = listed(top)
    return lambda: commit(store, take(store, top, found)[0])


@pytest.mark.parametrize(
    ("way", "how"),
    [
        (by_stream, errno.EIO),
        (by_stream, errno.ENOSPC),
        (by_stream, "short"),
        (by_folder, errno.EIO),
        (by_folder, errno.ENOSPC),
        (by_folder, "short"),
    ],
)
def test_each_call_to_the_disk_fails_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: int | str,
    way: Callable[[Store, Path, dict[str, bytes]], Callable[[], CommitKey]],
) -> None:
    """A commit is there as a whole or not at all, what was there before stays, nothing is left behind."""
    faults = Faults(tmp_path, monkeypatch)
    store = Store.open(tmp_path / "engine")
    with store.write() as txn:
        txn.create_repo(DATA)
    before = {"/grows": b"g" * (MEGABYTE // 2), "/kept": b"k" * 70_000, "/kept large": b"K" * MEGABYTE}
    head = put(store, before)
    store.objects.close()
    opened = descriptors()
    names: set[str] = set()
    refused = turn = 0
    while turn == 0 or faults.failed or faults.count >= turn:
        turn += 1
        new = files(turn)
        act = way(store, tmp_path / f"folder{turn}", new)
        faults.arm(turn, how)
        try:
            made = act()
        except (EngineError, OSError):
            faults.disarm()
            refused += 1
            assert len(store.list_commits(DATA)) == 1
        else:
            faults.disarm()
            assert content(store, made) == after(before, new)
            with store.write() as txn:
                txn.drop_commit_set(made.id)
        names.add(faults.failed)
        assert content(store, head) == before
        assert list(store.objects.tmp.iterdir()) == []
        # Packs are kept open to be read.
        store.objects.close()
        assert descriptors() == opened
    assert names >= ({"write"} if how == "short" else {"open", "write", "fdatasync", "fsync", "replace"})
    assert (how == "short") or refused > 20
    assert findings(store) == []
    last = put(store, files(0))
    store.close()
    again = Store.open(tmp_path / "engine")
    assert findings(again) == []
    assert content(again, last) == after(before, files(0))
    with again.read() as db:
        packs = {row[0] for row in db.execute("SELECT name FROM packs")}
        loose = {row[0].hex() for row in db.execute("SELECT hash FROM objects WHERE pack IS NULL")}
    assert {path.name for path in again.objects.packs.iterdir()} == packs
    assert {path.parent.name + path.name for path in again.objects.loose.glob("*/*")} == loose
    again.close()


def after(before: dict[str, bytes], new: dict[str, bytes]) -> dict[str, bytes]:
    return before | new | {"/grows": before["/grows"] + new["/grows"]}


@pytest.mark.parametrize("how", [errno.EIO, errno.EMFILE, "short"])
def test_each_read_fails_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: int | str) -> None:
    """It ends with an error or with all that was put in, and the next time with all."""
    faults = Faults(tmp_path, monkeypatch)
    store = Store.open(tmp_path / "engine")
    with store.write() as txn:
        txn.create_repo(DATA)
    kept = files(0)
    head = put(store, kept)
    turn = refused = 0
    while turn == 0 or faults.failed or faults.count >= turn:
        turn += 1
        # Nothing is remembered of files that were open or known to be whole.
        store.close()
        store = Store.open(tmp_path / "engine")
        faults.arm(turn, how)
        try:
            assert content(store, head) == kept
        except (EngineError, OSError):
            refused += 1
        faults.disarm()
        assert content(store, head) == kept
    assert refused > 3 or how == "short"
    assert findings(store) == []
    assert not store.damage.any()
    store.close()


@pytest.mark.parametrize("how", [errno.EIO, errno.ENOSPC, "short"])
def test_each_call_of_a_collection_fails_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: int | str
) -> None:
    """It ends with an error or goes on; nothing is lost, and the next one gives the rest back."""
    faults = Faults(tmp_path, monkeypatch)
    store = Store.open(tmp_path / "engine")
    with store.write() as txn:
        txn.create_repo(DATA)
    turn = refused = 0
    names: set[str] = set()
    while turn == 0 or faults.failed or faults.count >= turn:
        turn += 1
        held = with_garbage(store)
        faults.arm(turn, how)
        try:
            [*_] = collect(store)
        except (EngineError, OSError):
            refused += 1
        faults.disarm()
        names.add(faults.failed)
        assert {commit: content(store, commit) for commit in held} == held
        [*_] = collect(store)
        with store.read() as db:
            assert db.execute("SELECT count(*) FROM objects").fetchone()[0] == 2
        with store.write() as txn:
            for commit in reversed(held):
                txn.drop_commit_set(commit.id)
    assert names >= ({"pread"} if how == "short" else {"open", "write", "fsync"})
    assert (how == "short") or refused > 2
    store.close()
    store = Store.open(tmp_path / "engine")
    assert findings(store) == []
    assert orphans(store) == set()
    store.close()
