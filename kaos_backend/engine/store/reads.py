"""Reads that the store (last committed state) and a transaction (its own writes included) have in common."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress

from kaos_backend.engine.errors import DataLoss, NotFound
from kaos_backend.engine.store.bytes.objects import EMPTY_HASH, ObjectStore, locate
from kaos_backend.engine.store.model import (
    Branch,
    BranchKey,
    Commit,
    CommitKey,
    FileEntry,
    Project,
    Repo,
    RepoKey,
)
from kaos_backend.engine.store.trees import tree
from kaos_backend.engine.store.trees.glob import glob_tree
from kaos_backend.engine.store.trees.nodes import Node
from kaos_backend.engine.store.versions import history, refs

_PAGE = 100


class Reads:
    """Repos, branches, commits and files. A `root` is a tree's hash; None is the empty tree."""

    objects: ObjectStore

    def _connection(self) -> AbstractContextManager[sqlite3.Connection]:
        raise NotImplementedError

    def load(self, key: bytes) -> Node:
        """A decoded tree node."""
        raise NotImplementedError

    # The store as a whole

    def cluster_metadata(self) -> dict[str, str]:
        """The key-value pairs that users hung on the cluster itself."""
        with self._connection() as db:
            return refs.metadata_of(refs.cluster_value(db, "metadata") or "{}")

    # Projects and repos

    def inspect_project(self, name: str) -> Project:
        """NotFound when missing."""
        with self._connection() as db:
            return refs.inspect_project(db, name)

    def list_projects(self) -> list[Project]:
        with self._connection() as db:
            return refs.list_projects(db)

    def inspect_repo(self, key: RepoKey) -> Repo:
        """NotFound when missing."""
        with self._connection() as db:
            return refs.inspect_repo(db, key)

    def find_repo(self, key: RepoKey) -> Repo | None:
        with self._connection() as db:
            return refs.find_repo(db, key)

    def list_repos(self, type_: str = "", projects: Sequence[str] = ()) -> list[Repo]:
        """Ordered by project, then name; an empty type is every type, no projects are all of them."""
        with self._connection() as db:
            return refs.list_repos(db, type_, projects)

    def repo_size(self, key: RepoKey) -> int:
        """Bytes of the newest sized commit of ``master``."""
        with self._connection() as db:
            return refs.repo_size(db, key)

    # Branches

    def inspect_branch(self, key: BranchKey) -> Branch:
        """NotFound when the repo or branch is missing."""
        with self._connection() as db:
            return refs.inspect_branch(db, key)

    def find_branch(self, key: BranchKey) -> Branch | None:
        with self._connection() as db:
            return refs.find_branch(db, key)

    def list_branches(self, repo: RepoKey, reverse: bool = False) -> list[Branch]:
        """Newest first; oldest first with `reverse`."""
        with self._connection() as db:
            return refs.list_branches(db, repo, reverse)

    def cron_triggers(self) -> set[tuple[BranchKey, str]]:
        """The branches that move by time, each with the cron spec of its trigger."""
        with self._connection() as db:
            return refs.cron_triggers(db)

    def branch_provenance(self, key: BranchKey) -> list[BranchKey]:
        """Every branch upstream of one, upstream first."""
        with self._connection() as db:
            ids = refs.all_provenance(db, refs.branch_id(db, key))
            return [refs.branch_key(db, id_) for id_ in ids]

    def branch_subvenance(self, key: BranchKey) -> list[BranchKey]:
        """Every branch downstream of one, farthest last."""
        with self._connection() as db:
            ids = refs.all_subvenance(db, refs.branch_id(db, key))
            return [refs.branch_key(db, id_) for id_ in ids]

    # Commits

    def resolve_commit(self, repo: RepoKey, text: str) -> Commit:
        """What an id, a branch name (either with ``^``, ``~2``, ``.1``) or a set's id names in a repo."""
        with self._connection() as db:
            return history.commit_by_id(db, history.resolve_id(db, repo, text))

    def inspect_commit(self, key: CommitKey) -> Commit:
        """NotFound when the repo or commit is missing."""
        with self._connection() as db:
            return history.commit_of(db, history.require_commit_row(db, key))

    def find_commit(self, key: CommitKey) -> Commit | None:
        with self._connection() as db:
            row = history.find_commit_row(db, key)
            return None if row is None else history.commit_of(db, row)

    def list_commits(
        self,
        repo: RepoKey,
        *,
        from_: CommitKey | None = None,
        to: CommitKey | None = None,
        number: int = 0,
        reverse: bool = False,
        origin: str = "",
    ) -> list[Commit]:
        """Newest first; `to` inclusive and `from_` exclusive, both by ancestry; `number` 0 is all."""
        with self._connection() as db:
            return list(history.list_commits(db, repo, from_, to, number, reverse, origin))

    def commits_after(
        self, repo: RepoKey, position: int, branch: str = "", origin: str = "", number: int = 100
    ) -> list[tuple[int, Commit]]:
        """(position, commit) of the commits made in a repo after `position`: see `history.commits_after`."""
        with self._connection() as db:
            return history.commits_after(db, repo, position, branch, origin, number)

    def set_commits(self, set_id: str) -> list[Commit]:
        """The commits of one set, upstream first. NotFound when there is none."""
        with self._connection() as db:
            return [history.commit_by_id(db, id_) for id_ in history.set_commit_ids(db, set_id)]

    def commit_set(self, set_id: str) -> list[Commit]:
        """As `set_commits`, plus every commit in their provenance, upstream first."""
        with self._connection() as db:
            return history.commit_set(db, set_id)

    def list_commit_sets(self, project: str = "") -> Iterator[tuple[str, list[Commit]]]:
        """(id, commits) of every set that has a commit in `project` (empty: in any), newest first.

        They are read some at a time; one that is gone by then is left out.
        """
        with self._connection() as db:
            ids = history.set_ids(db, project)
        for start in range(0, len(ids), _PAGE):
            found = []
            with self._connection() as db:
                for set_id in ids[start : start + _PAGE]:
                    with suppress(NotFound):
                        commits = history.set_commit_ids(db, set_id)
                        found.append((set_id, [history.commit_by_id(db, id_) for id_ in commits]))
            yield from found

    # Files

    def stat(self, root: bytes | None, path: str, tag: str | None = None) -> FileEntry:
        """NotFound when nothing is there. A trailing slash does not matter."""
        return tree.stat(self.load, root, path, tag)

    def list_dir(self, root: bytes | None, path: str) -> Iterator[FileEntry]:
        """The children of a directory; for a file itself; for what is missing nothing."""
        return tree.list_dir(self.load, root, path)

    def walk(self, root: bytes | None, path: str = "/") -> Iterator[FileEntry]:
        """`path` and everything below it, depth first in the order of paths."""
        return tree.walk(self.load, root, path)

    def glob(self, root: bytes | None, pattern: str) -> Iterator[FileEntry]:
        """The files and directories that match, in the order of paths."""
        return glob_tree(self.load, root, pattern)

    def diff(
        self, new: bytes | None, old: bytes | None, path: str = "/"
    ) -> Iterator[tuple[FileEntry | None, FileEntry | None]]:
        """(new, old) for every path, directories included, at which two trees differ."""
        return tree.diff(self.load, new, old, path)

    def read_object(self, hash_: bytes, offset: int = 0) -> Iterator[bytes]:
        """The bytes of an object from `offset` on, in pieces of a few MiB at most.

        Raises:
            DataLoss: it is damaged or gone; now, or (a large one) before its last piece.
        """
        if hash_ == EMPTY_HASH:
            return iter(())
        with self._connection() as db:
            return self.objects.open(db, self.objects.require(locate(db, [hash_]), hash_), offset)

    def open_file(self, root: bytes | None, path: str, tag: str | None = None) -> Iterator[bytes]:
        """The content of a file. NotFound when there is none at `path`."""
        entry = self.stat(root, path, tag)
        if entry.kind != "file":
            raise NotFound(f"{path} is a directory")
        return self.read_file(entry)

    def read_file(self, entry: FileEntry, offset: int = 0) -> Iterator[bytes]:
        """As `read_object`, for a file; the error names its path."""
        try:
            yield from self.read_object(entry.hash, offset)
        except DataLoss as error:
            raise error.at(entry.path) from error
