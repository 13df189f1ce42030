"""The format of a store is its list of migrations: older ones are brought up, newer ones refused in words.

Whole stores as versions of kaos left them are in `tests/stores`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from kaos_backend.engine.errors import FailedPrecondition, Internal
from kaos_backend.engine.jobs.db.rows import MIGRATIONS as JOBS
from kaos_backend.engine.store.check import findings
from kaos_backend.engine.store.schema import MIGRATIONS as STORE
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.store.trees.nodes import decode

from .conftest import DATA, content, put

FILES = {"/f": b"1", "/large": b"L" * 1_100_000, **{f"/many/{n}": b"%d" % n * 300 for n in range(400)}}


def changed(store: Path, *statements: str) -> None:
    with closing(sqlite3.connect(store / "engine.sqlite")) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


def everything(store: Path) -> list[str]:
    """All that is in the database, and the names of all files beside it."""
    with closing(sqlite3.connect(store / "engine.sqlite")) as db:
        rows = list(db.iterdump())
    return rows + sorted(str(path) for path in store.rglob("*") if not path.name.startswith("engine.sqlite"))


def schema(store: Path) -> set[tuple[str, str]]:
    with closing(sqlite3.connect(store / "engine.sqlite")) as db:
        return set(db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


@pytest.mark.parametrize("known", range(1, len(STORE) + 1))
def test_every_earlier_format_is_brought_up(tmp_path: Path, known: int) -> None:
    """Made by the first migrations alone, its tables are those of a new store once it was opened."""
    Store.open(tmp_path / "new", migrations=JOBS).close()
    old = tmp_path / "old"
    old.mkdir()
    with closing(sqlite3.connect(old / "engine.sqlite")) as db:
        db.execute("CREATE TABLE migrations (name TEXT PRIMARY KEY, applied_us INTEGER NOT NULL)")
        for name, sql in STORE[:known]:
            db.executescript(sql)
            db.execute("INSERT INTO migrations VALUES (?, 0)", (name,))
        db.execute("INSERT INTO projects (name, description, created_us) VALUES ('default', 'kept', 0)")
        db.commit()
    with closing(Store.open(old, migrations=JOBS)) as store:
        assert store.inspect_project("default").description == "kept"
        with store.write() as txn:
            txn.create_repo(DATA)
        assert content(store, put(store, FILES)) == FILES
        assert findings(store) == []
    assert schema(old) == schema(tmp_path / "new")


def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "engine"
    with closing(Store.open(home, migrations=JOBS)) as store:
        with store.write() as txn:
            txn.create_repo(DATA)
        head = put(store, FILES)
    (home / "tmp" / "unknown").write_text("what a newer version keeps here")
    changed(home, "INSERT INTO migrations VALUES ('store-99-something-new', 0)", "CREATE TABLE newer (x)")
    before = everything(home)
    with pytest.raises(FailedPrecondition, match=r"newer version of kaos.*store-99-something-new.*run that"):
        Store.open(home, migrations=JOBS)
    assert everything(home) == before
    changed(home, "DELETE FROM migrations WHERE name='store-99-something-new'")
    with closing(Store.open(home, migrations=JOBS)) as store:
        assert content(store, head) == FILES


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    """And the version before still opens the store."""
    home = tmp_path / "engine"
    Store.open(home, migrations=JOBS).close()
    before = schema(home)
    broken = ("store-99-broken", "CREATE TABLE half (x); INSERT INTO nowhere VALUES (1)")
    with pytest.raises(Internal, match="nowhere"):
        Store.open(home, migrations=[*JOBS, broken])
    assert schema(home) == before
    Store.open(home, migrations=JOBS).close()


def test_a_directory_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    """Each row says which format it has."""
    with closing(Store.open(tmp_path / "engine")) as store:
        with store.write() as txn:
            txn.create_repo(DATA)
        head = put(store, {"/f": b"1"})
        root = store.inspect_commit(head).root
        assert root is not None
        with store.read() as db:
            node = db.execute("SELECT node FROM trees WHERE key=?", (root,)).fetchone()[0]
        # The first element of the array.
        assert node[1] == 1
        with pytest.raises(Internal, match="stored in format 2, this version reads 1"):
            decode(node[:1] + b"\2" + node[2:], lambda _: b"")
