from __future__ import annotations

import sqlite3

import pytest

from kaos_backend.engine.store import reads
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.store.versions import refs

from .conftest import put

LONG = 5_000


def test_chains_of_branches_may_be_longer_than_the_stack_of_python() -> None:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE branch_provenance (branch_id, from_id, position, never)")
    db.executemany("INSERT INTO branch_provenance VALUES (?, ?, 0, 0)", [(n + 1, n) for n in range(LONG)])
    assert refs.all_provenance(db, LONG) == list(range(LONG))
    assert refs.all_subvenance(db, 0) == list(range(1, LONG + 1))
    db.close()


def test_sets_are_read_as_they_are_asked_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "_PAGE", 2)
    ids = [put(store, {f"/{number}": b""}).id for number in range(5)][::-1]
    listed = store.list_commit_sets()
    assert next(listed) == (ids[0], store.set_commits(ids[0]))
    with store.write() as txn:
        txn.squash_commit_set(ids[3])
    # The first page was read by then.
    assert [set_id for set_id, _ in listed] == [ids[1], ids[2], ids[4]]
    assert list(store.list_commit_sets("nobody's")) == []
