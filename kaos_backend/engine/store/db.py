"""SQLite: one writer at a time, any number of snapshot readers, and migrations.

The writer is a single connection behind a lock; readers come from a pool, so that hundreds of parked gRPC
threads do not each hold file descriptors. Durability is SQLite's: WAL with ``synchronous=FULL`` syncs on
every commit.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kaos_backend.engine.errors import EngineError, FailedPrecondition, Internal, disk_full
from kaos_backend.engine.store.schema import Migration

_POOL_SIZE = 16
# Of the writer. Many rows are inserted in the order of their keys, so that each page is needed once.
_CACHE_KIB = 8 << 10
# What the write-ahead log keeps of its length when it is begun anew.
_LOG_BYTES = 64 << 20
_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})


class Database:
    """The SQLite file of one store. Threads may share it."""

    def __init__(self, path: Path, migrations: Sequence[Migration], applied_us: int) -> None:
        self.path = path
        self._write_lock = threading.Lock()
        self._write_thread: int | None = None
        self._pool: list[sqlite3.Connection] = []
        self._pool_lock = threading.Lock()
        self._closed = False
        # The age of each block that reads now, by a token; and how often it was asked for.
        self._reading: dict[object, int] = {}
        self._age = 0
        self._writer = self._connect()
        try:
            # For a new file; an old one gets it when it is rewritten.
            self._writer.execute("PRAGMA auto_vacuum=INCREMENTAL")
            mode = self._writer.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            if mode != "wal":
                raise Internal(f"{path} cannot use a write-ahead log (journal mode is {mode})")
            self._writer.execute("PRAGMA synchronous=FULL")
            self._writer.execute("PRAGMA foreign_keys=ON")
            self._writer.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
            self._writer.execute(f"PRAGMA journal_size_limit={_LOG_BYTES}")
            _migrate(self._writer, migrations, applied_us)
        except sqlite3.Error as error:
            self._writer.close()
            raise translate(error, path) from error
        except EngineError:
            self._writer.close()
            raise

    def close(self) -> None:
        """Close every connection; the last one folds the write-ahead log into the file."""
        with self._write_lock, self._pool_lock:
            self._closed = True
            for connection in self._pool:
                connection.close()
            self._pool.clear()
            self._writer.close()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """The writer inside ``BEGIN IMMEDIATE``. The body commits; whatever it leaves open is rolled back.

        Raises:
            RuntimeError: this thread already is inside a write (it would wait for itself for ever).
        """
        me = threading.get_ident()
        if self._write_thread == me:
            raise RuntimeError("a write transaction is already open in this thread")
        with self._write_lock:
            self._write_thread = me
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                yield self._writer
            except sqlite3.OperationalError as error:
                raise translate(error, self.path) from error
            finally:
                try:
                    if self._writer.in_transaction:
                        self._writer.rollback()
                finally:
                    self._write_thread = None

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A read-only connection that sees one snapshot for as long as the block lasts."""
        with self._pool_lock:
            if self._closed:
                raise FailedPrecondition("the store is closed")
            connection = self._pool.pop() if self._pool else None
            token = object()
            self._reading[token] = self._age
        try:
            if connection is None:
                connection = self._connect()
                connection.execute("PRAGMA query_only=ON")
            connection.execute("BEGIN")
            yield connection
        finally:
            if connection is not None and connection.in_transaction:
                connection.rollback()
            with self._pool_lock:
                del self._reading[token]
                keep = not self._closed and len(self._pool) < _POOL_SIZE
                if keep and connection is not None:
                    self._pool.append(connection)
            if not keep and connection is not None:
                connection.close()

    def readers_before(self) -> Callable[[], int]:
        """How many blocks of `read` are left that may see what was there before the last write."""
        with self._pool_lock:
            age = self._age
            self._age += 1

        def left() -> int:
            with self._pool_lock:
                return sum(one <= age for one in self._reading.values())

        return left

    def rewrite(self) -> None:
        """Write the file anew without what is free in it. Writers wait. A crash leaves the old one."""
        with self._write_lock:
            try:
                self._writer.execute("VACUUM")
            except sqlite3.Error as error:
                raise translate(error, self.path) from error
        self.fold_log()

    def fold_log(self) -> None:
        """Write what is in the write-ahead log to the file and cut the log, unless somebody needs it now."""
        connection = self._connect()
        try:
            connection.execute("PRAGMA busy_timeout=0")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            raise translate(error, self.path) from error
        finally:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, cached_statements=256, timeout=30.0
        )
        connection.row_factory = sqlite3.Row
        return connection


def _migrate(db: sqlite3.Connection, migrations: Sequence[Migration], applied_us: int) -> None:
    db.execute("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied_us INTEGER NOT NULL)")
    done = {row[0] for row in db.execute("SELECT name FROM migrations")}
    unknown = done - {name for name, _ in migrations}
    if unknown:
        raise FailedPrecondition(
            f"the store was written by a newer version of kaos (unknown: {', '.join(sorted(unknown))}); "
            "run that version or a later one, or choose another KAOS_HOME"
        )
    for name, sql in migrations:
        if name in done:
            continue
        quoted = name.replace("'", "''")
        # One script, so that the change and its record are one transaction.
        try:
            db.executescript(
                f"BEGIN IMMEDIATE;{sql};INSERT INTO migrations VALUES ('{quoted}',{applied_us});COMMIT;"  # noqa: S608
            )
        except sqlite3.Error:
            if db.in_transaction:
                db.rollback()
            raise


def translate(error: sqlite3.Error, path: Path) -> EngineError:
    """What an SQLite failure means to a caller."""
    code = getattr(error, "sqlite_errorcode", None)
    if code in _FULL:
        return disk_full(str(path.parent))
    return Internal(f"the store at {path.parent} failed: {error}")
