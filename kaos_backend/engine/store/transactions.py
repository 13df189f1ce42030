"""Open transactions of `transaction_v2`: requests that wait, as bytes, to be run together."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from kaos_backend.engine.errors import NotFound
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.store.txn import Txn


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """What was appended so far, in order, each request with what its dry run answered.

    `version` grows with every append. `started_us`: UTC microseconds.
    """

    id: str
    started_us: int
    version: int
    requests: tuple[bytes, ...]
    responses: tuple[bytes, ...]


class OpenTransactions:
    """The open transactions of a store. They outlast a crash, until they are finished or deleted."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def start(self) -> str:
        """Open an empty one; its id."""
        id_ = self._store.new_id()
        with self._store.write() as txn:
            txn.db.execute("INSERT INTO transactions (id, started_us) VALUES (?,?)", (id_, txn.now_us))
        return id_

    def inspect(self, id_: str) -> OpenTransaction:
        """NotFound when there is none."""
        with self._store.read() as db:
            return _load(db, id_)

    def list_all(self) -> list[OpenTransaction]:
        """Newest first."""
        with self._store.read() as db:
            ids = [row[0] for row in db.execute("SELECT id FROM transactions ORDER BY started_us DESC, id")]
            return [_load(db, id_) for id_ in ids]

    def append(self, seen: OpenTransaction, request: bytes, response: bytes) -> bool:
        """Add a request that was tried out after what `seen` holds.

        False, and nothing is added, when another call was appended meanwhile: its dry run did not see that.
        NotFound when the transaction is gone.
        """
        with self._store.write() as txn:
            if _load(txn.db, seen.id).version != seen.version:
                return False
            txn.db.execute(
                """INSERT INTO transaction_requests (transaction_id, position, request, response)
                   VALUES (?,?,?,?)""",
                (seen.id, seen.version, request, response),
            )
            txn.db.execute("UPDATE transactions SET version=version+1 WHERE id=?", (seen.id,))
        return True

    def take(self, txn: Txn, id_: str) -> OpenTransaction:
        """What is to be run inside `txn`, forgotten with its COMMIT. NotFound when there is none."""
        found = _load(txn.db, id_)
        _delete(txn.db, id_)
        return found

    def delete(self, id_: str) -> None:
        """NotFound when there is none."""
        with self._store.write() as txn:
            _load(txn.db, id_)
            _delete(txn.db, id_)

    def delete_all(self) -> None:
        with self._store.write() as txn:
            txn.db.execute("DELETE FROM transaction_requests")
            txn.db.execute("DELETE FROM transactions")


def _load(db: sqlite3.Connection, id_: str) -> OpenTransaction:
    row = db.execute("SELECT started_us, version FROM transactions WHERE id=?", (id_,)).fetchone()
    if row is None:
        raise NotFound(f"transactions {id_} not found")
    stored = db.execute(
        "SELECT request, response FROM transaction_requests WHERE transaction_id=? ORDER BY position", (id_,)
    ).fetchall()
    return OpenTransaction(
        id_, row[0], row[1], tuple(one[0] for one in stored), tuple(one[1] for one in stored)
    )


def _delete(db: sqlite3.Connection, id_: str) -> None:
    db.execute("DELETE FROM transaction_requests WHERE transaction_id=?", (id_,))
    db.execute("DELETE FROM transactions WHERE id=?", (id_,))
