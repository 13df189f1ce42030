"""What the verbs of one write transaction share."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from kaos_backend.engine.store.model import CommitKey, RepoKey
from kaos_backend.engine.store.trees.tree import Load


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
