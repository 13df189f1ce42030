"""What is referred to: everything that the roots lead to, and what is written while that is found out."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

from kaos_backend.engine.errors import DataLoss, FailedPrecondition
from kaos_backend.engine.store.references import Marks, Roots
from kaos_backend.engine.store.space.pace import Pace, Progress, slices
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.store.trees.nodes import links
from kaos_backend.engine.store.txn import fetch_tree

_PAGE = 2000
# So many new directories are looked at while everybody waits, more of them before that.
_AT_ONCE = 64


class Marking:
    """The objects and the rows of `trees` that are referred to.

    From `begin` to `end` triggers note, in the transactions that write them, the trees that are new and those
    that are referred to anew. So what is marked is all that was referred to when it began, and, once
    `absorb` has no more to do, all that is referred to now.
    """

    def __init__(self, store: Store, pace: Pace) -> None:
        self._store = store
        self._pace = pace
        self.objects = Marks()
        # The first eight bytes of each key, as `Marks` has them.
        self._trees: set[int] = set()

    def begin(self) -> None:
        with self._store.maintain() as db:
            _look_away(db)
            for statement in _watch(self._store.roots):
                db.execute(statement)
            db.execute("COMMIT")

    def end(self) -> None:
        """Also after a `begin` that failed."""
        with self._store.maintain() as db:
            _look_away(db)
            db.execute("COMMIT")

    def has_tree(self, key: bytes) -> bool:
        return int.from_bytes(key[:8]) in self._trees

    def mark(self) -> Iterator[Progress]:
        """All that is referred to now.

        Raises:
            FailedPrecondition: what a damaged directory leads to cannot be told, so nothing may be removed.
        """
        with self._store.read() as db:
            total = sum(_count(db, column.table) for column in self._store.roots.columns)
        done = 0
        for column in self._store.roots.columns:
            after = -1
            while True:
                with self._store.read() as db:
                    # Names of tables and columns that layers of this program registered.
                    rows = db.execute(
                        f"SELECT rowid, {column.column} FROM {column.table}"  # noqa: S608
                        " WHERE rowid > ? ORDER BY rowid LIMIT ?",
                        (after, _PAGE),
                    ).fetchall()
                if not rows:
                    break
                after = rows[-1][0]
                yield from (
                    Progress("mark", done, total) for _ in self.walk({row[1] for row in rows} - {None})
                )
                done += len(rows)
                yield Progress("mark", done, total)
        self.mark_held()

    def mark_held(self) -> None:
        """What is referred to from memory."""
        held = self._store.roots.held()
        self.objects.add(object_ for one in held for object_ in one.objects)
        for _ in self.walk({tree for one in held for tree in one.trees}):
            pass

    def walk(self, keys: Iterable[bytes]) -> Iterator[None]:
        """Mark directories and all below them."""
        todo: list[bytes] = list(keys)
        while todo:
            with self._store.read() as db:
                for _ in slices():
                    if not todo:
                        break
                    self._visit(db, todo)
            self._pace.rest()
            yield

    def absorb(self) -> Iterator[None]:
        """Mark what was written meanwhile, until there is nothing, or little, left."""
        while True:
            with self._store.maintain() as db:
                keys = [row[0] for row in db.execute("SELECT key FROM temp.gc_new LIMIT ?", (_PAGE,))]
                db.executemany("DELETE FROM temp.gc_new WHERE key=?", [(key,) for key in keys])
                db.execute("COMMIT")
            yield from self.walk(keys)
            if len(keys) < _PAGE:
                return

    def absorbed(self, db: sqlite3.Connection) -> bool:
        """Inside a write transaction: whether all is marked that was written so far."""
        todo: list[bytes] = [
            row[0] for row in db.execute("SELECT key FROM temp.gc_new LIMIT ?", (_AT_ONCE + 1,))
        ]
        if len(todo) > _AT_ONCE:
            return False
        for _ in slices():
            if not todo:
                db.execute("DELETE FROM temp.gc_new")
                return True
            self._visit(db, todo)
        return False

    def _visit(self, db: sqlite3.Connection, todo: list[bytes]) -> None:
        key = todo.pop()
        number = int.from_bytes(key[:8])
        if number in self._trees:
            return
        try:
            found = links(fetch_tree(db, key))
        except DataLoss as error:
            raise FailedPrecondition(
                "nothing can be removed while it cannot be told what a damaged directory leads to: "
                f"{error.message}",
            ) from error
        self.objects.add(found.objects)
        todo += found.rows
        self._trees.add(number)


def _count(db: sqlite3.Connection, table: str) -> int:
    return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608


def _watch(roots: Roots) -> Iterator[str]:
    """Notes of every tree that is written, be it there already, and of every new reference to one."""
    note = "BEGIN INSERT OR IGNORE INTO gc_new VALUES (NEW.{}); END"
    yield "CREATE TEMP TABLE gc_new (key BLOB PRIMARY KEY) WITHOUT ROWID"
    yield f"CREATE TEMP TRIGGER gc_trees BEFORE INSERT ON main.trees {note.format('key')}"
    for table, column in roots.columns:
        when = f"WHEN NEW.{column} IS NOT NULL {note.format(column)}"
        yield f"CREATE TEMP TRIGGER gc_{table}_{column}_new AFTER INSERT ON main.{table} {when}"
        yield f"CREATE TEMP TRIGGER gc_{table}_{column} AFTER UPDATE OF {column} ON main.{table} {when}"


def _look_away(db: sqlite3.Connection) -> None:
    triggers = db.execute("SELECT name FROM temp.sqlite_master WHERE type='trigger'").fetchall()
    for (name,) in triggers:
        db.execute(f"DROP TRIGGER temp.{name}")
    db.execute("DROP TABLE IF EXISTS temp.gc_new")
