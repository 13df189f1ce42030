"""Collections, damage and repairs against a model: whatever is done, and whatever is done in the middle of a
collection, what is referred to stays readable, and after one that ran by itself everything else is gone in
bytes. What was damaged is never given away; it is whole again once it was sent again, or repaired.

A collection is a generator here, moved on by a few steps at a time, so that everything else comes between
any two of its steps.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
from blake3 import blake3
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kaos_backend.engine.errors import DataLoss
from kaos_backend.engine.store.bytes import batch
from kaos_backend.engine.store.bytes.objects import PACK_HEAD, PACK_MAGIC, locate
from kaos_backend.engine.store.check import findings
from kaos_backend.engine.store.model import BranchKey, CommitKey, RepoKey
from kaos_backend.engine.store.space import packs
from kaos_backend.engine.store.space.collect import Collected, collect
from kaos_backend.engine.store.space.pace import Progress
from kaos_backend.engine.store.store import Store, Upload
from tests.unit.engine.store.test_damage import HURTS

REPO = RepoKey("default", "data")
PATHS = ("/a", "/b", "/d/a", "/d/b", "/d/e/f")
Content = dict[str, bytes]

# Sizes of all three kinds: in the database, in packs, files of their own. Contents come again and again.
BODIES = [bytes([65 + i]) * size for i, size in enumerate((1, 30, 45, 70, 90, 400, 500, 900))]
BY_HASH = {blake3(body).digest(): body for body in BODIES}
files = st.dictionaries(st.sampled_from(PATHS), st.sampled_from(BODIES), min_size=1, max_size=5)


@pytest.fixture(autouse=True, scope="module")
def _small_is_large() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "INLINE_BYTES", 40)
        patch.setattr(batch, "LOOSE_BYTES", 300)
        patch.setattr(packs, "_WORTH_BYTES", 1)
        yield


class CollectionMachine(RuleBasedStateMachine):
    @initialize()
    def open_store(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.now = self.ids = 0
        self.store = self.open()
        self.commits: dict[CommitKey, Content] = {}
        self.sets: dict[str, tuple[Content, int]] = {}
        self.uploads: list[tuple[Upload, Content]] = []
        # What may be damaged, and by upload what was known to be so when it began: that is stored anew.
        self.bad: set[bytes] = set()
        self.healing: dict[Upload, set[bytes]] = {}
        self.laid_out: list[Content] = []
        self.collecting: Iterator[Progress | Collected] = iter(())
        with self.store.write() as txn:
            txn.create_repo(REPO)

    def open(self) -> Store:
        # Ids are chosen here, so that a run can be repeated to the letter.
        return Store.open(self.directory, clock=lambda: self.now, new_id=self.new_id)

    def new_id(self) -> str:
        self.ids += 1
        return f"{self.ids:012x}4{self.ids:019x}"

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.close()
            shutil.rmtree(self.directory)

    def close(self) -> None:
        for upload, _ in self.uploads:
            upload.__exit__(None, None, None)
        self.uploads, self.healing = [], {}
        self.stop_collecting()
        self.store.close()

    def stop_collecting(self) -> None:
        if hasattr(self.collecting, "close"):
            self.collecting.close()
        self.collecting = iter(())

    # Uploads, each in steps of its own

    @precondition(lambda self: len(self.uploads) < 3)
    @rule(new=files)
    def begin_upload(self, new: Content) -> None:
        upload = self.store.upload()
        for path, data in new.items():
            upload.add(path, "", data)
        upload.seal()
        self.uploads.append((upload, new))
        self.healing[upload] = self.bad & set(new.values())

    @precondition(lambda self: self.uploads)
    @rule(branch=st.sampled_from("xy"), pick=st.integers(0, 9))
    def commit_upload(self, branch: str, pick: int) -> None:
        upload, new = self.uploads.pop(pick % len(self.uploads))
        with upload:
            upload.operations = [*upload.operations]
            with self.store.write() as txn:
                commit = txn.start_commit(BranchKey(REPO, branch))
                txn.clear_commit(commit)
                txn.set_root(commit, None)
                txn.apply(commit, upload)
                txn.finish_commit(commit)
        self.commits[commit] = new
        self.bad -= self.healing.pop(upload)

    @precondition(lambda self: self.uploads)
    @rule(pick=st.integers(0, 9))
    def keep_as_file_set(self, pick: int) -> None:
        upload, new = self.uploads.pop(pick % len(self.uploads))
        with upload:
            with self.store.write() as txn:
                root = txn.edit(None, upload.operations, upload)
            self.bad -= self.healing.pop(upload)
            id_ = self.store.filesets.add(upload.operations, root, 60)
        self.sets[id_] = (new, self.now + 60_000_000)

    @precondition(lambda self: self.uploads)
    @rule(pick=st.integers(0, 9))
    def break_upload_off(self, pick: int) -> None:
        upload, _ = self.uploads.pop(pick % len(self.uploads))
        upload.__exit__(None, None, None)

    # What refers anew, and what stops to

    @precondition(lambda self: self.commits)
    @rule(pick=st.integers(0, 99), branch=st.sampled_from("xy"), path=st.sampled_from(("/", "/d", "/a")))
    def copy(self, pick: int, branch: str, path: str) -> None:
        source = sorted(self.commits, key=str)[pick % len(self.commits)]
        held = self.commits[source]
        with self.store.upload() as upload:
            upload.copy("/new", "", source, path, "", False)
            with self.store.write() as txn:
                commit = txn.start_commit(BranchKey(REPO, branch))
                txn.set_root(commit, None)
                txn.apply(commit, upload)
                txn.finish_commit(commit)
        if path in held:
            self.commits[commit] = {"/new": held[path]}
        else:
            below = path.rstrip("/") + "/"
            self.commits[commit] = {
                "/new/" + one.removeprefix(below): data for one, data in held.items() if one.startswith(below)
            }

    @precondition(lambda self: self.sets)
    @rule(pick=st.integers(0, 9), branch=st.sampled_from("xy"))
    def commit_file_set(self, pick: int, branch: str) -> None:
        id_ = sorted(self.sets)[pick % len(self.sets)]
        with self.store.upload() as upload, self.store.write() as txn:
            commit = txn.start_commit(BranchKey(REPO, branch))
            txn.set_root(commit, None)
            txn.apply(commit, upload, self.store.filesets.get(id_).operations)
            txn.finish_commit(commit)
        self.commits[commit] = self.sets[id_][0]

    @precondition(lambda self: self.commits)
    @rule(pick=st.integers(0, 99))
    def drop(self, pick: int) -> None:
        last = [one.key for one in self.store.list_commits(REPO) if not one.children]
        commit = sorted(last, key=str)[pick % len(last)]
        with self.store.write() as txn:
            txn.drop_commit(commit)
        self.commits.pop(commit, None)

    @rule(seconds=st.integers(1, 50))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * 1_000_000
        self.sets = {id_: held for id_, held in self.sets.items() if held[1] >= self.now}

    # Damage

    @rule(pick=st.integers(0, 99), hurt=st.sampled_from(sorted(HURTS)))
    def damage(self, pick: int, hurt: str) -> None:
        with self.store.read() as db:
            found = [at for at in locate(db, BY_HASH).values() if BY_HASH[at.hash] not in self.bad]
        if found:
            at = sorted(found, key=lambda one: one.hash)[pick % len(found)]
            HURTS[hurt](self.store, at)
            # With its pack more goes than one.
            beside = {one.hash for one in found if hurt != "flip" and one.pack == at.pack is not None}
            self.bad |= {BY_HASH[one] for one in {at.hash, *beside} if not self.is_whole(one)}
            assert BY_HASH[at.hash] in self.bad

    def is_whole(self, hash_: bytes) -> bool:
        """Whether an object can be read; what is given away is right."""
        try:
            assert b"".join(self.store.read_object(hash_)) == BY_HASH[hash_]
        except DataLoss:
            return False
        return True

    @precondition(lambda self: self.commits and len(self.laid_out) < 3)
    @rule(pick=st.integers(0, 99))
    def lay_out(self, pick: int) -> None:
        commit = sorted(self.commits, key=str)[pick % len(self.commits)]
        root, held = self.store.inspect_commit(commit).root, self.commits[commit]
        if root is not None and not self.bad.intersection(held.values()):
            self.store.materialize(root, "/", self.directory / "laid" / f"{len(self.laid_out)}")
            self.laid_out.append(held)

    @precondition(lambda self: self.bad)
    @rule()
    def repair(self) -> None:
        # A collection that waits for an upload would wait here for ever; it is broken off.
        self.stop_collecting()
        found = findings(self.store, repair=True, laid_out=self.directory / "laid")
        assert {one.object for one in found} <= {blake3(body).digest() for body in self.bad}
        for held in self.commits.values():
            for path, body in held.items():
                if any(copy.get(path) == body for copy in self.laid_out):
                    self.bad.discard(body)
        for one in found:
            if one.repaired and one.object:
                self.bad.discard(BY_HASH[one.object])
        lost = {one.object for one in findings(self.store)}
        assert lost <= {blake3(body).digest() for body in self.bad}

    # Collections

    @rule(steps=st.integers(1, 400))
    def collect_some(self, steps: int) -> None:
        for _ in range(steps):
            told = next(self.collecting, None)
            if told is None or isinstance(told, Collected):
                self.collecting = collect(self.store)
            elif told.stage == "wait":
                break

    @precondition(lambda self: not self.uploads)
    @rule()
    def collect_all(self) -> None:
        [*_] = self.collecting
        [*_] = collect(self.store)
        found = findings(self.store)
        assert {one.object for one in found} <= {blake3(body).digest() for body in self.bad}
        if found:
            return
        self.bad = set()
        held = [*self.commits.values(), *(one for one, _ in self.sets.values())]
        bodies = {data for one in held for data in one.values()}
        with self.store.read() as db:
            found = {row[0]: row for row in db.execute("SELECT hash, pack, offset, length FROM objects")}
            small = db.execute("SELECT count(*) FROM small_objects").fetchone()[0]
        assert sorted(row[3] for row in found.values()) == sorted(map(len, bodies))
        assert small == sum(row[1] == -1 for row in found.values())
        loose = sum(path.stat().st_size for path in self.store.objects.loose.glob("*/*"))
        assert loose == sum(row[3] for row in found.values() if row[1] is None)
        packed = sum(path.stat().st_size - len(PACK_MAGIC) for path in self.store.objects.packs.iterdir())
        living = sum(row[3] + PACK_HEAD.size for row in found.values() if row[1] is not None and row[1] > 0)
        count = len([*self.store.objects.packs.iterdir()])
        assert packed <= 2 * living + count * len(PACK_MAGIC), "no pack is mostly dead"

    @rule()
    def reopen(self) -> None:
        self.close()
        self.store = self.open()
        self.sets = {}

    @invariant()
    def what_is_referred_to_is_readable(self) -> None:
        if not hasattr(self, "store"):
            return
        for commit, held in self.commits.items():
            self.assert_holds(self.store.inspect_commit(commit).root, held)
        for id_, (held, _) in self.sets.items():
            self.assert_holds(self.store.filesets.get(id_).root, held)

    def assert_holds(self, root: bytes | None, held: Content) -> None:
        # Past the nodes that are remembered.
        self.store.nodes._nodes.clear()
        self.store.nodes._entries = 0
        found = {entry.path: entry.hash for entry in self.store.walk(root) if entry.kind == "file"}
        assert {path: BY_HASH[hash_] for path, hash_ in found.items()} == held
        for hash_ in found.values():
            assert self.is_whole(hash_) or BY_HASH[hash_] in self.bad


CollectionMachine.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestCollectionMachine = CollectionMachine.TestCase
