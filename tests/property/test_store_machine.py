"""The store against a model made of dictionaries: repos, branches, commits, streams of changes, transactions.

Two repos of input feed one derived branch, so that every rule also meets propagation. The invariants are
those of the reference, 20.2, items 1-4 and 6.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.store.model import BranchKey, CommitKey, RepoKey
from kaos_backend.engine.store.store import Store, Upload

INPUTS = ("left", "right")
BRANCHES = ("master", "dev")
PATHS = ("/a", "/b", "/d/a", "/d/b", "/d/e/f", "/a/x")
DIRECTORIES = ("/", "/d/", "/d/e/", "/a/")
OUT = BranchKey(RepoKey("default", "out"), "master")
Content = dict[str, bytes]

data = st.binary(max_size=12)
change = st.one_of(
    st.tuples(st.just("append"), st.sampled_from(PATHS), data),
    st.tuples(st.just("overwrite"), st.sampled_from(PATHS), data),
    st.tuples(st.just("delete"), st.sampled_from(PATHS + DIRECTORIES), st.just(b"")),
)
changes = st.lists(change, min_size=1, max_size=6)


@dataclass
class ModelCommit:
    parent: str | None
    content: Content
    open: bool
    error: bool = False
    children: list[str] = field(default_factory=list)


def repo(name: str) -> RepoKey:
    return RepoKey("default", name)


def apply(content: Content, ops: list[tuple[str, str, bytes]]) -> Content:
    new = dict(content)
    for verb, path, payload in ops:
        if verb == "append":
            new[path] = new.get(path, b"") + payload
        elif verb == "overwrite":
            new[path] = payload
        elif path.endswith("/"):
            new = {key: value for key, value in new.items() if not key.startswith(path)}
        else:
            new.pop(path, None)
    return new


def collides(content: Content) -> bool:
    return any(other.startswith(path + "/") for path in content for other in content)


class StoreMachine(RuleBasedStateMachine):
    @initialize()
    def open_store(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.ticks = 0
        self.ids = 0
        self.store = self.open()
        self.commits: dict[tuple[str, str], ModelCommit] = {}
        self.heads: dict[tuple[str, str], str] = {}
        self.derived: list[str] = []
        with self.store.write() as txn:
            for name in (*INPUTS, "out"):
                txn.create_repo(repo(name))
            txn.create_branch(OUT, provenance=[BranchKey(repo(name), "master") for name in INPUTS])
        self.derived.append(txn.set_id)
        for name in INPUTS:
            self.heads[name, "master"] = txn.set_id
            self.commits[name, txn.set_id] = ModelCommit(None, {}, open=False)

    def open(self) -> Store:
        # Ids are chosen here, so that a run can be repeated to the letter.
        return Store.open(self.directory, clock=self.tick, new_id=self.new_id)

    def new_id(self) -> str:
        self.ids += 1
        return f"{self.ids:012x}4{self.ids:019x}"

    def tick(self) -> int:
        self.ticks += 1_000_000
        return self.ticks

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.directory)

    # Helpers

    def base(self, name: str, parent: str | None) -> Content:
        while parent is not None:
            found = self.commits[name, parent]
            if not found.error:
                return dict(found.content)
            parent = found.parent
        return {}

    def open_commits(self) -> list[tuple[str, str]]:
        return sorted(key for key, one in self.commits.items() if one.open)

    def started(self, name: str, branch: str, set_id: str) -> None:
        parent = self.heads.get((name, branch))
        self.commits[name, set_id] = ModelCommit(parent, self.base(name, parent), open=True)
        if parent is not None:
            self.commits[name, parent].children.append(set_id)
        self.heads[name, branch] = set_id

    def propagated(self, names: set[tuple[str, str]], set_id: str) -> None:
        if any(branch == "master" for _, branch in names):
            self.derived.append(set_id)

    def can_start(self, name: str, branch: str) -> bool:
        head = self.heads.get((name, branch))
        return head is None or not self.commits[name, head].open

    def finished(self, key: tuple[str, str]) -> None:
        one = self.commits[key]
        one.open = False
        one.error = one.error or collides(one.content)

    @staticmethod
    def fill(upload: Upload, ops: list[tuple[str, str, bytes]]) -> None:
        for verb, path, payload in ops:
            if verb != "append":
                upload.delete(path, "")
            if verb != "delete":
                upload.add(path, "", payload)
        upload.seal()

    # Rules

    @rule(name=st.sampled_from(INPUTS), branch=st.sampled_from(BRANCHES))
    def start(self, name: str, branch: str) -> None:
        key = BranchKey(repo(name), branch)
        if not self.can_start(name, branch):
            with pytest.raises(EngineError, match="has not been finished"), self.store.write() as txn:
                txn.start_commit(key)
            return
        with self.store.write() as txn:
            txn.start_commit(key)
        self.started(name, branch, txn.set_id)
        self.propagated({(name, branch)}, txn.set_id)

    @rule(branch=st.sampled_from(BRANCHES), dry=st.booleans())
    def start_both(self, branch: str, dry: bool) -> None:
        """One transaction, one set: whatever it starts, the derived branch gets one commit."""
        if not all(self.can_start(name, branch) for name in INPUTS):
            return
        with self.store.write(dry_run=dry) as txn:
            for name in INPUTS:
                txn.start_commit(BranchKey(repo(name), branch))
        if dry:
            return
        for name in INPUTS:
            self.started(name, branch, txn.set_id)
        self.propagated({(name, branch) for name in INPUTS}, txn.set_id)

    @rule(name=st.sampled_from(INPUTS))
    def two_commits_of_a_repo_in_one_set_are_refused(self, name: str) -> None:
        if not (self.can_start(name, "master") and self.can_start(name, "dev")):
            return
        with self.store.write(dry_run=True) as txn:
            txn.start_commit(BranchKey(repo(name), "master"))
            with pytest.raises(EngineError, match="inconsistent dependencies"):
                txn.start_commit(BranchKey(repo(name), "dev"))

    @precondition(lambda self: self.open_commits())
    @rule(ops=changes, pick=st.integers(0, 99))
    def modify(self, ops: list[tuple[str, str, bytes]], pick: int) -> None:
        name, id_ = self.open_commits()[pick % len(self.open_commits())]
        with self.store.upload() as upload:
            self.fill(upload, ops)
            with self.store.write() as txn:
                txn.apply(CommitKey(repo(name), id_), upload)
        self.commits[name, id_].content = apply(self.commits[name, id_].content, ops)

    @precondition(lambda self: self.open_commits())
    @rule(ops=changes, pick=st.integers(0, 99))
    def a_broken_stream_leaves_nothing(self, ops: list[tuple[str, str, bytes]], pick: int) -> None:
        name, id_ = self.open_commits()[pick % len(self.open_commits())]
        with suppress(KeyError), self.store.upload() as upload:
            self.fill(upload, ops)
            with self.store.write() as txn:
                txn.apply(CommitKey(repo(name), id_), upload)
                raise KeyError("the stream breaks")

    @precondition(lambda self: self.open_commits())
    @rule(
        pick=st.integers(0, 99),
        source=st.integers(0, 99),
        src=st.sampled_from(PATHS + DIRECTORIES),
        dst=st.sampled_from(("/b", "/d/b", "/copy")),
        append=st.booleans(),
    )
    def copy(self, pick: int, source: int, src: str, dst: str, append: bool) -> None:
        name, id_ = self.open_commits()[pick % len(self.open_commits())]
        everything = sorted(self.commits)
        from_name, from_id = everything[source % len(everything)]
        found = self.commits[from_name, from_id].content
        with self.store.upload() as upload:
            upload.copy(dst, "", CommitKey(repo(from_name), from_id), src, "", append)
            upload.seal()
            with self.store.write() as txn:
                txn.apply(CommitKey(repo(name), id_), upload)
        if not src.endswith("/") and src in found:
            copied = {dst: found[src]}
        else:
            below = src if src.endswith("/") else src + "/"
            copied = {
                dst + "/" + path.removeprefix(below): body
                for path, body in found.items()
                if path.startswith(below)
            }
        content = dict(self.commits[name, id_].content)
        for path, body in copied.items():
            content[path] = content.get(path, b"") + body if append else body
        self.commits[name, id_].content = content

    @precondition(lambda self: self.open_commits())
    @rule(pick=st.integers(0, 99), error=st.booleans())
    def finish(self, pick: int, error: bool) -> None:
        name, id_ = self.open_commits()[pick % len(self.open_commits())]
        with self.store.write() as txn:
            txn.finish_commit(CommitKey(repo(name), id_), error="bad" if error else "")
        self.commits[name, id_].error = error
        self.finished((name, id_))

    @precondition(lambda self: self.open_commits())
    @rule(pick=st.integers(0, 99))
    def clear(self, pick: int) -> None:
        name, id_ = self.open_commits()[pick % len(self.open_commits())]
        with self.store.write() as txn:
            txn.clear_commit(CommitKey(repo(name), id_))
        self.commits[name, id_].content = self.base(name, self.commits[name, id_].parent)

    @rule(name=st.sampled_from(INPUTS), pick=st.integers(0, 99))
    def move_dev(self, name: str, pick: int) -> None:
        """A branch moved by hand takes an existing commit as head and makes none."""
        own = sorted(id_ for one, id_ in self.commits if one == name)
        id_ = own[pick % len(own)]
        with self.store.write() as txn:
            txn.create_branch(BranchKey(repo(name), "dev"), head=CommitKey(repo(name), id_))
        self.heads[name, "dev"] = id_

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.open()

    # Invariants

    @invariant()
    def contents_are_what_was_written(self) -> None:
        if not hasattr(self, "store"):
            return
        for (name, id_), model in self.commits.items():
            commit = self.store.inspect_commit(CommitKey(repo(name), id_))
            found = {
                entry.path: b"".join(self.store.read_object(entry.hash))
                for entry in self.store.walk(commit.root)
                if entry.kind == "file"
            }
            assert found == model.content
            assert (commit.finished_us is None) == model.open
            assert bool(commit.error) == model.error
            if not model.open:
                assert commit.size_bytes == sum(map(len, model.content.values()))
            assert (commit.parent.id if commit.parent else None) == model.parent

    @invariant()
    def heads_are_where_they_were_put(self) -> None:
        if not hasattr(self, "store"):
            return
        for name in INPUTS:
            found = {one.key.name: one.head.id for one in self.store.list_branches(repo(name))}
            assert found == {branch: id_ for (one, branch), id_ in self.heads.items() if one == name}

    @invariant()
    def the_derived_branch_has_one_commit_per_set(self) -> None:
        if not hasattr(self, "store"):
            return
        commits = self.store.list_commits(OUT.repo, reverse=True)
        assert [one.key.id for one in commits] == self.derived
        assert all(len(one.provenance) == 2 and one.origin == "AUTO" for one in commits)
        newest = {source.repo.name: source.id for source in commits[-1].provenance}
        for name in INPUTS:
            # It reads commits of the inputs, as their heads were when it was made.
            assert newest[name] in {id_ for one, id_ in self.commits if one == name}


StoreMachine.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestStoreMachine = StoreMachine.TestCase
