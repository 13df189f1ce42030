"""One write transaction, as the rest of the engine sees it."""

from __future__ import annotations

import itertools
import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

from blake3 import blake3

from kaos_backend.engine.errors import CommitFinished, DataLoss
from kaos_backend.engine.store.bytes.objects import ObjectStore
from kaos_backend.engine.store.model import (
    BranchKey,
    Commit,
    CommitKey,
    FileSource,
    RepoKey,
    Subtree,
)
from kaos_backend.engine.store.reads import Reads
from kaos_backend.engine.store.trees.cache import NodeCache
from kaos_backend.engine.store.trees.edit import Copy, Operation, TreeEditor
from kaos_backend.engine.store.trees.files import Staged
from kaos_backend.engine.store.trees.nodes import Node
from kaos_backend.engine.store.trees.upload import Upload, edit_tree, insert_trees, store_tree, write_tree
from kaos_backend.engine.store.versions import branches, commits, history, repos, sets, triggers
from kaos_backend.engine.store.versions.state import WriteState

log = logging.getLogger(__name__)

_ENTRIES_AT_ONCE = 2000


@dataclass
class Hooks:
    """What other layers do inside every write transaction.

    Attributes:
        opened: called after propagation with the open AUTO commits in user repos that it made.
        before_drop: called before commits go away (drop, squash, repo deletion).
        before_repo_delete: called with (transaction, repo, force) before a repo goes away; raise to refuse.
    """

    opened: list[Callable[[Txn, list[Commit]], None]] = field(default_factory=list)
    before_drop: list[Callable[[Txn, list[CommitKey]], None]] = field(default_factory=list)
    before_repo_delete: list[Callable[[Txn, RepoKey, bool], None]] = field(default_factory=list)


class Txn(Reads):
    """One write transaction. Everything it does becomes visible and durable together, or not at all.

    Attributes:
        set_id: the id of every commit it makes.
        db: the writer's connection, for the jobs layer's own tables.
        now_us: the time of everything it does, UTC microseconds.
        dry_run: True when it will be rolled back whatever happens; start nothing outside the database then.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        set_id: str,
        now_us: int,
        dry_run: bool,
        *,
        objects: ObjectStore,
        nodes: NodeCache,
        hooks: Hooks,
        upload: Callable[[], Upload],
    ) -> None:
        self.db = db
        self.set_id = set_id
        self.now_us = now_us
        self.dry_run = dry_run
        self.objects = objects
        self._nodes = nodes
        self._hooks = hooks
        self._upload = upload
        self.merged_bytes = 0
        self._after: list[Callable[[], None]] = []
        self._state = WriteState(
            db=db,
            set_id=set_id,
            now_us=now_us,
            load=self.load,
            before_drop=self._before_drop,
            before_repo_delete=self._before_repo_delete,
        )

    def _connection(self) -> AbstractContextManager[sqlite3.Connection]:
        return nullcontext(self.db)

    def load(self, key: bytes) -> Node:
        return self._nodes.load(key, self._fetch)

    def _fetch(self, key: bytes) -> bytes:
        return fetch_tree(self.db, key)

    def _before_drop(self, keys: list[CommitKey]) -> None:
        for hook in self._hooks.before_drop:
            hook(self, keys)

    def _before_repo_delete(self, key: RepoKey, force: bool) -> None:
        for hook in self._hooks.before_repo_delete:
            hook(self, key, force)

    # Projects and repos

    def make_cluster_id(self, new_id: str) -> str:
        """The store's id, which is `new_id` from now on if it has none."""
        return repos.make_cluster_id(self._state, new_id)

    def create_project(self, name: str, description: str = "", update: bool = False) -> None:
        repos.create_project(self._state, name, description, update)

    def delete_project(self, name: str, force: bool = False) -> None:
        repos.delete_project(self._state, name, force)

    def create_repo(self, key: RepoKey, description: str = "", update: bool = False) -> None:
        repos.create_repo(self._state, key, description, update)

    def delete_repo(self, key: RepoKey, force: bool = False) -> bool:
        """Delete a repo and its spec/meta siblings; whether there was one."""
        return repos.delete_repo(self._state, key, force)

    def set_metadata(
        self, target: str | RepoKey | BranchKey | CommitKey | None, metadata: Mapping[str, str]
    ) -> None:
        """Replace the metadata of a project (by name), repo, branch or commit; None is the cluster."""
        repos.set_metadata(self._state, target, metadata)

    # Branches and commits

    def create_branch(
        self,
        key: BranchKey,
        head: CommitKey | None = None,
        provenance: Sequence[BranchKey] = (),
        trigger: bytes | None = None,
        never: Iterable[BranchKey] = (),
    ) -> None:
        """Upsert by the rules of the reference, 5.3. `trigger`: JSON with the fields of the message."""
        branches.create(self._state, key, head, provenance, trigger, never)

    def fire_trigger(self, key: BranchKey) -> None:
        """The time of a trigger with a cron spec has come: its branch moves to what its source has."""
        triggers.fire_by_time(self._state, key)

    def delete_branch(self, key: BranchKey, force: bool = False) -> None:
        branches.delete(self._state, key, force)

    def start_commit(
        self,
        branch: BranchKey,
        parent: CommitKey | None = None,
        description: str = "",
        origin: str = "USER",
        internal: bool = False,
    ) -> CommitKey:
        """Start a commit; `internal` lifts the refusal for output branches."""
        return commits.start(self._state, branch, parent, description, origin, internal)

    def start_alike(self, key: CommitKey, instead: Mapping[CommitKey, CommitKey]) -> CommitKey:
        """Start another commit on what the derived commit `key` came from, see `commits.start_alike`."""
        return commits.start_alike(self._state, key, instead)

    def finish_commit(
        self, key: CommitKey, error: str = "", description: str | None = None, force: bool = False
    ) -> None:
        """Finish an open commit, at once: what makes its tree invalid becomes its error."""
        commits.finish(self._state, key, error, description, force)

    def clear_commit(self, key: CommitKey) -> None:
        commits.clear(self._state, key)

    def forget_commit(self, key: CommitKey) -> None:
        """Let go of what a finished commit holds that is no head; reading it fails from then on."""
        commits.forget(self._state, key)

    def set_root(self, key: CommitKey, root: bytes | None) -> None:
        """Replace the content of an open commit."""
        commits.set_root(self._state, key, root)

    def squash_commit_set(self, set_id: str) -> None:
        sets.squash_set(self._state, set_id)

    def drop_commit_set(self, set_id: str) -> None:
        sets.drop_set(self._state, set_id)

    def squash_commit(self, key: CommitKey, recursive: bool = False) -> None:
        sets.squash_commit(self._state, key, recursive)

    def drop_commit(self, key: CommitKey, recursive: bool = False) -> None:
        sets.drop_commit(self._state, key, recursive)

    # Content

    def apply(self, key: CommitKey, upload: Upload, operations: Sequence[Operation] | None = None) -> None:
        """Apply a stream of changes to an open commit.

        Raises:
            Unknown: the commit has finished, or its base has not.
        """
        row = history.require_commit_row(self.db, key)
        if row["finishing_us"] is not None:
            raise CommitFinished(key)
        if row["base_open"]:
            raise commits.unfinished_base(self._state, row)
        todo = upload.operations if operations is None else operations
        root = self.edit(row["root"], todo, upload)
        commits.set_root(self._state, key, root)

    def edit(self, root: bytes | None, operations: Iterable[Operation], upload: Upload) -> bytes | None:
        """Apply operations to a tree; return the new root (copies may name commits)."""
        upload.confirm(self.db)
        resolved = [self._resolve(operation) for operation in operations]
        new_root = edit_tree(self.db, self.load, self._nodes.keep, root, resolved, self.objects, upload.batch)
        self._after.append(lambda: setattr(upload, "committed", True))
        return new_root

    def _resolve(self, operation: Operation) -> Operation:
        if isinstance(operation, Copy) and isinstance(operation.source, CommitKey):
            row = history.require_commit_row(self.db, operation.source)
            return replace(operation, source=history.commit_of(self.db, row).root)
        return operation

    def adopt(self, staged: Staged) -> bytes | None:
        """Insert the rows of staged files; their tree is usable from here on. None: no files."""
        staged.upload.confirm(self.db)
        staged.upload.batch.record(self.db)
        insert_trees(self.db, staged.rows)
        self._after.append(lambda: setattr(staged.upload, "committed", True))
        return staged.root

    def merge(self, roots: Iterable[bytes | None], without: Iterable[bytes] = ()) -> bytes | None:
        """Union of trees. The same path under two tags stays as two entries (finishing reports it).

        `without`: trees whose files the first one has, and the result has not. What of the first tree changes
        is written anew; `merged_bytes` adds up how much that is.
        """
        todo = [root for root in roots if root is not None]
        gone = list(without)
        if not todo or (len(todo) == 1 and not gone):
            return todo[0] if todo else None
        editor = TreeEditor(self.load, todo[0])
        for root in gone:
            editor.subtract(root)
        for root in todo[1:]:
            editor.overlay(root)
        return self._store(editor)

    def build_tree(self, entries: Iterable[tuple[str, Subtree | FileSource | None]]) -> bytes | None:
        """A tree made of files, and of files and directories of other trees by reference (tags kept). None: a
        directory that an earlier entry has brought is left out.
        """
        root = None
        rest = iter(entries)
        with self._upload() as upload:
            # What is being changed takes a kilobyte an entry: of more than so many a part is written first.
            while some := list(itertools.islice(rest, _ENTRIES_AT_ONCE)):
                editor = TreeEditor(self.load, root)
                for path, source in some:
                    _add(editor, upload, path, source)
                root = write_tree(self.db, editor, self._nodes.keep, self.objects, upload.batch).root
            upload.batch.seal()
            upload.batch.record(self.db)
            # Should the transaction fail, what was written is an orphan for the next sweep.
            upload.committed = True
        return root

    def _store(self, editor: TreeEditor) -> bytes | None:
        with self._upload() as upload:
            written = store_tree(self.db, editor, self._nodes.keep, self.objects, upload.batch)
            upload.committed = True
        self.merged_bytes += sum(len(node) for _, node in written.rows)
        return written.root

    # The end

    def on_commit(self, action: Callable[[], None]) -> None:
        """Run `action` after COMMIT (never for a dry run or a rollback)."""
        self._after.append(action)

    def settle(self) -> None:
        """Propagate and call the hooks, until nothing changes any more."""
        done: set[int] = set()
        while self._state.checked or set(self._state.opened) - done:
            commits.propagate(self._state)
            fresh = [id_ for id_ in self._state.opened if id_ not in done]
            done.update(fresh)
            found = [history.commit_by_id(self.db, id_) for id_ in fresh]
            new = [one for one in found if one.key.repo.type == "user" and one.finishing_us is None]
            if new:
                self._call_hooks(new)

    def _call_hooks(self, new: list[Commit]) -> None:
        for hook in self._hooks.opened:
            hook(self, new)

    def committed(self) -> None:
        # The transaction is done: to its caller an exception now would look as if it had failed.
        for action in self._after:
            try:
                action()
            except Exception:
                log.exception("something that follows a committed transaction failed")


def _add(editor: TreeEditor, upload: Upload, path: str, source: Subtree | FileSource | None) -> None:
    if source is None:
        editor.delete(f"{path}/", "")
    elif isinstance(source, Subtree):
        editor.graft(path, source.root, source.path)
    elif isinstance(source.content, bytes):
        hash_ = upload.batch.add(source.content)
        editor.put(path, source.tag, hash_, len(source.content))
    else:
        upload.add(path, source.tag, b"")
        with source.content.open("rb") as file:
            while data := file.read(1 << 20):
                upload.add(path, source.tag, data)
        upload.end_file()
        put = upload.operations[-1]
        editor.put(path, source.tag, put.object, put.size)  # type: ignore[union-attr]


def fetch_tree(db: sqlite3.Connection, key: bytes) -> bytes:
    """The stored bytes of a tree node or chunk. DataLoss when they are gone or other than the key says."""
    row = db.execute("SELECT node FROM trees WHERE key=?", (key,)).fetchone()
    if row is None:
        raise DataLoss(key, "(the listing of a directory) is missing in the database")
    node: bytes = row[0]
    if blake3(node).digest() != key:
        raise DataLoss(key, "(the listing of a directory) has changed in the database")
    return node
