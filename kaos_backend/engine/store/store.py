"""The store: the one object the rest of the engine talks to. (Signatures first; bodies follow.)"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from kaos_backend.engine import ids
from kaos_backend.engine.clock import Clock, now_us
from kaos_backend.engine.store.changes import ChangeBus
from kaos_backend.engine.store.model import (
    Branch,
    BranchKey,
    Commit,
    CommitKey,
    FileEntry,
    FileSource,
    Project,
    Repo,
    RepoKey,
    Subtree,
)

Migration = tuple[str, str]


class Staged:
    """Files whose bytes are durable on disk, but whose rows wait for a transaction (`Txn.adopt`)."""

    root: bytes | None

    def discard(self) -> None:
        """Forget it; the files go with the next sweep."""
        raise NotImplementedError


class Reads:
    """Reads common to `Store` (each call sees the last committed state) and `Txn` (sees its own writes)."""

    def inspect_project(self, name: str) -> Project:
        """NotFound when missing."""
        raise NotImplementedError

    def list_projects(self) -> list[Project]:
        raise NotImplementedError

    def inspect_repo(self, key: RepoKey) -> Repo:
        raise NotImplementedError

    def find_repo(self, key: RepoKey) -> Repo | None:
        raise NotImplementedError

    def list_repos(self, type: str = "", projects: Sequence[str] = ()) -> list[Repo]:
        """Ordered by project, name; empty `type` means all types."""
        raise NotImplementedError

    def inspect_branch(self, key: BranchKey) -> Branch:
        raise NotImplementedError

    def find_branch(self, key: BranchKey) -> Branch | None:
        raise NotImplementedError

    def list_branches(self, repo: RepoKey, reverse: bool = False) -> list[Branch]:
        """Newest first; oldest first with `reverse`."""
        raise NotImplementedError

    def branch_provenance(self, key: BranchKey) -> list[BranchKey]:
        """Transitive, upstream first."""
        raise NotImplementedError

    def branch_subvenance(self, key: BranchKey) -> list[BranchKey]:
        """Transitive."""
        raise NotImplementedError

    def resolve_commit(self, repo: RepoKey, text: str) -> Commit:
        """The commit that `text` (an id, a branch name, either with `^`/`~`/`.N`, or a set id) names in `repo`."""
        raise NotImplementedError

    def inspect_commit(self, key: CommitKey) -> Commit:
        raise NotImplementedError

    def find_commit(self, key: CommitKey) -> Commit | None:
        raise NotImplementedError

    def list_commits(
        self,
        repo: RepoKey,
        *,
        from_: CommitKey | None = None,
        to: CommitKey | None = None,
        number: int = 0,
        reverse: bool = False,
        origin: str = "",
    ) -> Iterator[Commit]:
        """Newest first; `to` inclusive and `from_` exclusive, both by ancestry."""
        raise NotImplementedError

    def set_commits(self, set_id: str) -> list[Commit]:
        """The commits of one set, upstream first. NotFound when there is none."""
        raise NotImplementedError

    def commit_set(self, set_id: str) -> list[Commit]:
        """As `set_commits`, plus every commit in their provenance, upstream first."""
        raise NotImplementedError

    def list_commit_sets(self, project: str = "") -> list[tuple[str, list[Commit]]]:
        """Newest first."""
        raise NotImplementedError

    # Files: all work on a root tree hash; None is the empty tree.
    def stat(self, root: bytes | None, path: str) -> FileEntry:
        """NotFound when nothing is there. A trailing ``/`` of `path` does not matter."""
        raise NotImplementedError

    def list_dir(self, root: bytes | None, path: str) -> Iterator[FileEntry]:
        raise NotImplementedError

    def walk(self, root: bytes | None, path: str = "/") -> Iterator[FileEntry]:
        raise NotImplementedError

    def glob(self, root: bytes | None, pattern: str) -> Iterator[FileEntry]:
        raise NotImplementedError

    def diff(
        self, new: bytes | None, old: bytes | None, path: str = "/"
    ) -> Iterator[tuple[FileEntry | None, FileEntry | None]]:
        raise NotImplementedError

    def read_object(self, hash: bytes, offset: int = 0) -> Iterator[bytes]:
        raise NotImplementedError

    def open_file(self, root: bytes | None, path: str, tag: str | None = None) -> Iterator[bytes]:
        raise NotImplementedError


class Store(Reads):
    changes: ChangeBus
    # Called inside the write transaction after propagation, with the new, still open AUTO commits of user repos.
    hooks: list[Callable[[Txn, list[Commit]], None]]
    # Called inside the write transaction before commits go away (drop, squash, repo deletion).
    drop_hooks: list[Callable[[Txn, list[CommitKey]], None]]
    # Called before a repo goes away; (txn, key, force): raise to refuse.
    delete_repo_hooks: list[Callable[[Txn, RepoKey, bool], None]]
    root: Path

    @classmethod
    def open(
        cls,
        root: Path,
        clock: Clock = now_us,
        new_id: Callable[[], str] = ids.new_id,
        migrations: Sequence[Migration] = (),
    ) -> Store:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def write(self, set_id: str | None = None, dry_run: bool = False) -> AbstractContextManager[Txn]:
        raise NotImplementedError

    def read(self) -> AbstractContextManager[sqlite3.Connection]:
        """A pooled read-only connection inside one snapshot; rows are plain tuples (sqlite3.Row)."""
        raise NotImplementedError

    def materialize(self, root: bytes, path: str, dest: Path) -> None:
        raise NotImplementedError

    def stage(self, src: Path, tag: str) -> Staged:
        """Take the regular files below `src` in: bytes durable, rows pending until `Txn.adopt(staged)`."""
        raise NotImplementedError

    # Each of the next three runs in a write transaction of its own; Txn has the same names for use inside one.
    def ingest(self, src: Path, tag: str) -> bytes | None:
        raise NotImplementedError

    def merge(self, roots: Iterable[bytes | None]) -> bytes | None:
        raise NotImplementedError

    def build_tree(self, entries: Mapping[str, Subtree | FileSource]) -> bytes | None:
        raise NotImplementedError


@dataclass
class Txn(Reads):
    """One write transaction. `set_id` is the id of every commit it makes; `db` serves the jobs layer's tables."""

    set_id: str
    db: sqlite3.Connection
    now_us: int
    dry_run: bool

    def create_project(self, name: str, description: str = "", update: bool = False) -> None:
        raise NotImplementedError

    def delete_project(self, name: str, force: bool = False) -> None:
        raise NotImplementedError

    def create_repo(self, key: RepoKey, description: str = "", update: bool = False) -> None:
        raise NotImplementedError

    def delete_repo(self, key: RepoKey, force: bool = False) -> bool:
        raise NotImplementedError

    def create_branch(
        self,
        key: BranchKey,
        head: CommitKey | None = None,
        provenance: Sequence[BranchKey] = (),
        trigger: bytes | None = None,
        never: Iterable[BranchKey] = (),
    ) -> None:
        """Upsert by the rules of the reference, 5.3."""
        raise NotImplementedError

    def delete_branch(self, key: BranchKey, force: bool = False) -> None:
        raise NotImplementedError

    def start_commit(
        self,
        branch: BranchKey,
        parent: CommitKey | None = None,
        description: str = "",
        origin: str = "USER",
        internal: bool = False,
    ) -> CommitKey:
        """`internal` lifts the refusal for output branches (spec commits, cron ticks, …)."""
        raise NotImplementedError

    def finish_commit(
        self, key: CommitKey, error: str = "", description: str | None = None, force: bool = False
    ) -> None:
        raise NotImplementedError

    def clear_commit(self, key: CommitKey) -> None:
        raise NotImplementedError

    def set_root(self, key: CommitKey, root: bytes | None) -> None:
        """Replace the content of an open commit."""
        raise NotImplementedError

    def squash_commit_set(self, set_id: str) -> None:
        raise NotImplementedError

    def drop_commit_set(self, set_id: str) -> None:
        raise NotImplementedError

    def edit_repo_metadata(self, key: RepoKey, metadata: Mapping[str, str]) -> None:
        raise NotImplementedError

    def adopt(self, staged: Staged) -> bytes | None:
        """Insert the rows of staged files; their root tree is usable from here on. None: it was empty."""
        raise NotImplementedError

    def merge(self, roots: Iterable[bytes | None]) -> bytes | None:
        """Union of trees. The same path under two tags stays as two entries (finishing reports it)."""
        raise NotImplementedError

    def build_tree(self, entries: Mapping[str, Subtree | FileSource]) -> bytes | None:
        """A tree made of files and subtrees of other trees, by reference."""
        raise NotImplementedError

    def on_commit(self, action: Callable[[], None]) -> None:
        """Run `action` after COMMIT (never for a dry run or a rollback)."""
        raise NotImplementedError
