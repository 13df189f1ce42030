"""Killed at any point: afterwards every acknowledged commit is whole, and orphans are swept.

Two ways to die: SIGKILL at random moments, and a stop at each single step of the write path in turn.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kaos_backend.engine.store.bytes.disk import Disk
from kaos_backend.engine.store.check import findings
from kaos_backend.engine.store.model import CommitKey
from kaos_backend.engine.store.space.collect import collect
from kaos_backend.engine.store.store import Store

from .conftest import DATA, content, put

# Writes commit after commit, each with files whose content follows from its number; says so when one is done.
WRITER = """
import sys
from pathlib import Path
from kaos_backend.engine.store.model import BranchKey, RepoKey
from kaos_backend.engine.store.store import Store

store = Store.open(Path(sys.argv[1]))
key = RepoKey("default", "data")
if store.find_repo(key) is None:
    with store.write() as txn:
        txn.create_repo(key)
number = int(sys.argv[2])
while True:
    with store.upload() as upload:
        for i in range(40):
            upload.add(f"/{number}/{i}", "", f"{number}.{i}.".encode() * (400 * i))
        upload.add(f"/{number}/large", "", f"{number}".encode() * 2_000_000)
        upload.seal()
        with store.write() as txn:
            commit = txn.start_commit(BranchKey(key, "master"))
            txn.apply(commit, upload)
            txn.finish_commit(commit)
    print(number, commit.id, flush=True)
    number += 1
"""


def expected(number: int) -> dict[str, bytes]:
    made = {f"/{number}/{i}": f"{number}.{i}.".encode() * (400 * i) for i in range(40)}
    made[f"/{number}/large"] = f"{number}".encode() * 2_000_000
    return made


def orphans(store: Store) -> set[str]:
    """Files below the store's directories that no index row speaks of."""
    with store.read() as db:
        packs = {row[0] for row in db.execute("SELECT name FROM packs")}
        loose = {row[0].hex() for row in db.execute("SELECT hash FROM objects WHERE pack IS NULL")}
    found = {path.name for path in store.objects.packs.iterdir()} - packs
    found |= {path.name for path in store.objects.tmp.iterdir()}
    return found | {p.parent.name + p.name for p in store.objects.loose.glob("*/*")} - loose


@pytest.mark.parametrize("seed", range(3))
def test_sigkill_at_random_moments(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    home = tmp_path / "engine"
    acknowledged: dict[str, int] = {}
    number = 0
    for _ in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(home), str(number)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        for _ in range(chance.randint(1, 4)):
            done, id_ = writer.stdout.readline().split()
            acknowledged[id_] = int(done)
        # Somewhere in the middle of the next one: as far as a few thousand spins take us.
        for _ in range(chance.randint(0, 200_000)):
            pass
        os.kill(writer.pid, signal.SIGKILL)
        for line in writer.stdout:
            done, id_ = line.split()
            acknowledged[id_] = int(done)
        writer.wait()
        writer.stdout.close()
        number = max(acknowledged.values()) + 2

        store = Store.open(home)
        assert findings(store) == []
        assert orphans(store) == set(), "what a crash left is swept when the store is opened"
        whole = {path: body for one in acknowledged.values() for path, body in expected(one).items()}
        head = store.inspect_branch(store.list_branches(DATA)[0].key).head
        found = content(store, head)
        assert whole.items() <= found.items(), "nothing acknowledged is lost"
        assert set(acknowledged) <= {one.key.id for one in store.list_commits(DATA)}
        store.close()


class Stopped(BaseException):
    """The process is gone: nothing after this runs, clean-up included."""


class StoppingDisk(Disk):
    """Dies before its n-th step. What was done before stays done, as after a SIGKILL."""

    def __init__(self) -> None:
        self.left = 10**9

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Stopped

    def create(self, path: Path) -> int:
        self._step()
        return super().create(path)

    def write(self, fd: int, data: bytes | bytearray | memoryview) -> None:
        self._step()
        super().write(fd, data)

    def copy(self, source: int, target: int, offset: int, length: int) -> int:
        self._step()
        return super().copy(source, target, offset, length)

    def sync(self, fd: int) -> None:
        self._step()
        super().sync(fd)

    def sync_directory(self, path: Path) -> None:
        self._step()
        super().sync_directory(path)

    def make_directory(self, path: Path) -> None:
        self._step()
        super().make_directory(path)

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        super().rename(source, target)


FILES = {f"/f{i}": bytes([i]) * 50_000 for i in range(5)} | {
    "/large": b"L" * 1_500_000,
    "/larger": b"M" * 2_500_000,
}


def stop_in_every_gap(tmp_path: Path, act: Callable[[Store], object]) -> int:
    """Run `act` with a disk that dies at its first, second, … step and check the store; return the steps."""
    steps = 0
    while True:
        home = tmp_path / f"engine{steps}"
        disk = StoppingDisk()
        store = Store.open(home, disk=disk)
        with store.write() as txn:
            txn.create_repo(DATA)
        before = put(store, {"/kept": b"kept" * 30_000, "/kept large": b"k" * 1_200_000})
        disk.left = steps
        try:
            act(store)
        except Stopped:
            died = True
        else:
            died = False
        store.close()
        again = Store.open(home)
        assert findings(again) == []
        assert orphans(again) == set()
        assert content(again, before) == {"/kept": b"kept" * 30_000, "/kept large": b"k" * 1_200_000}
        commits = again.list_commits(DATA)
        assert len(commits) == (1 if died else 2), "a commit is there as a whole or not at all"
        again.close()
        if not died:
            return steps
        steps += 1


def test_a_stop_in_every_gap_of_the_write_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A killed process cleans nothing up.
    monkeypatch.setattr("kaos_backend.engine.store.bytes.batch.Batch.abort", lambda self: None)
    assert stop_in_every_gap(tmp_path, lambda store: put(store, FILES)) > 10


def test_an_error_in_every_gap_is_cleaned_up(tmp_path: Path) -> None:
    assert stop_in_every_gap(tmp_path, lambda store: put(store, FILES)) > 10


class Killed:
    """Kills this process before its n-th step, be it of the disk or of the database."""

    def __init__(self, left: int) -> None:
        self.left = left

    def step(self) -> None:
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


class KillingDisk(Disk):
    def __init__(self, killed: Killed) -> None:
        self._killed = killed

    def create(self, path: Path) -> int:
        self._killed.step()
        return super().create(path)

    def write(self, fd: int, data: bytes | bytearray | memoryview) -> None:
        self._killed.step()
        super().write(fd, data)

    def sync(self, fd: int) -> None:
        self._killed.step()
        super().sync(fd)

    def sync_directory(self, path: Path) -> None:
        self._killed.step()
        super().sync_directory(path)

    def unlink(self, path: Path) -> None:
        self._killed.step()
        super().unlink(path)


class KillingStore(Store):
    killed: Killed

    @contextmanager
    def maintain(self) -> Iterator[sqlite3.Connection]:
        self.killed.step()
        with super().maintain() as db:
            yield db
        self.killed.step()


def collect_until_killed(home: Path, steps: int) -> None:
    killed = Killed(10**9)
    KillingStore.killed = killed
    store = KillingStore.open(home, disk=KillingDisk(killed))
    killed.left = steps
    for _ in collect(store):
        pass


def with_garbage(store: Store) -> dict[CommitKey, dict[str, bytes]]:
    """Leave a pack of which little lives, one of which nothing does, and large files of both kinds; what
    commits hold.
    """
    kept = {"/kept large": b"k" * 1_050_000}
    before = put(store, kept)
    sparse = {f"/sparse/{i}": os.urandom(70_000) for i in range(3)}
    thinned = put(store, sparse, finish=False)
    with store.upload() as upload:
        for path in [*sparse][1:]:
            upload.delete(path, "")
        with store.write() as txn:
            txn.apply(thinned, upload)
            txn.finish_commit(thinned)
    dropped = put(store, {"/small": b"s" * 70_000, "/large": b"l" * 1_050_000})
    with store.write() as txn:
        txn.drop_commit_set(dropped.id)
    return {before: kept, thinned: kept | dict([*sparse.items()][:1])}


def test_a_kill_in_every_gap_of_a_collection(tmp_path: Path) -> None:
    """Rows that go, a pack that is written anew, packs and large files that are removed."""
    first = tmp_path / "engine"
    store = Store.open(first)
    with store.write() as txn:
        txn.create_repo(DATA)
    held = with_garbage(store)
    store.close()

    died, steps = True, 0
    while died:
        home = tmp_path / f"engine{steps}"
        shutil.copytree(first, home)
        child = os.fork()
        if not child:
            try:
                collect_until_killed(home, steps)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        died = os.WIFSIGNALED(status)
        assert died or os.WEXITSTATUS(status) == 0
        again = Store.open(home)
        assert findings(again) == []
        assert orphans(again) == set(), "what a kill left is swept when the store is opened"
        assert {commit: content(again, commit) for commit in held} == held
        [*_] = collect(again)
        assert findings(again) == []
        assert {commit: content(again, commit) for commit in held} == held
        with again.read() as db:
            assert db.execute("SELECT count(*) FROM objects").fetchone()[0] == 2
        assert sum(path.stat().st_size for path in again.objects.packs.iterdir()) < 71_000
        again.close()
        shutil.rmtree(home)
        steps += 1
    assert steps > 20
