from __future__ import annotations

import sqlite3

from kaos_backend.engine.store.versions import refs

LONG = 5_000


def test_chains_of_branches_may_be_longer_than_the_stack_of_python() -> None:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE branch_provenance (branch_id, from_id, position, never)")
    db.executemany("INSERT INTO branch_provenance VALUES (?, ?, 0, 0)", [(n + 1, n) for n in range(LONG)])
    assert refs.all_provenance(db, LONG) == list(range(LONG))
    assert refs.all_subvenance(db, 0) == list(range(1, LONG + 1))
    db.close()
