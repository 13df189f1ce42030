"""What the verbs of one write transaction share."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from kaos_backend.engine.store.model import CommitKey, RepoKey
from kaos_backend.engine.store.trees.nodes import Load


@dataclass
class WriteState:
    """One write transaction under way.

    Attributes:
        db: the writer, inside ``BEGIN IMMEDIATE``.
        set_id: the id of every commit this transaction makes.
        now_us: the time of everything this transaction does, UTC microseconds.
        load: reads tree nodes, those written by this transaction included.
        moved: ids of branches whose head changed; what lies downstream of them gets new commits at the end.
        checked: ids of branches whose head or provenance changed; their graphs are validated at the end.
        opened: ids of the open AUTO commits made by propagation or for a new provenance.
    """

    db: sqlite3.Connection
    set_id: str
    now_us: int
    load: Load
    before_drop: Callable[[list[CommitKey]], None]
    before_repo_delete: Callable[[RepoKey, bool], None]
    moved: set[int] = field(default_factory=set)
    checked: set[int] = field(default_factory=set)
    opened: list[int] = field(default_factory=list)

    def set_head(self, repo_id: int, name: str, branch_id: int | None, commit_id: int) -> int:
        """Point a branch (a new one when `branch_id` is None) at a commit; return the branch's id."""
        if branch_id is None:
            cursor = self.db.execute(
                "INSERT INTO branches (repo_id, name, head_id, created_us, updated_us) VALUES (?,?,?,?,?)",
                (repo_id, name, commit_id, self.now_us, self.now_us),
            )
            branch_id = cursor.lastrowid
            assert branch_id is not None
        else:
            self.db.execute(
                "UPDATE branches SET head_id=?, updated_us=? WHERE id=?", (commit_id, self.now_us, branch_id)
            )
        self.moved.add(branch_id)
        self.checked.add(branch_id)
        return branch_id
