"""What the metrics of a model are, by its content, on disk: a cache that may be deleted at any time.

Content never changes, so what was read of it once stays true, also that nothing could be read. An entry is
of one server, one content and one version of the parser (`metrics.PARSER`). What is damaged, missing or in
the way is read again from the server; nothing that is wrong with the cache is an error to anybody.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
from blake3 import blake3

from kaos_backend.domain.metrics import PARSER, Reading

MAX_BYTES = 64 * 1024 * 1024
# Larger than any of use; what is larger is read each time.
_MAX_ENTRY_BYTES = 256 * 1024
_MARK_BYTES = 8
_AT_ONCE = 500

_SCHEMA = """
CREATE TABLE IF NOT EXISTS readings (
    seq INTEGER PRIMARY KEY, server TEXT, content TEXT, parser INTEGER, reading BLOB,
    UNIQUE (server, content, parser)
)
"""
_SIZES = ("page_count", "freelist_count", "page_size")
_log = logging.getLogger(__name__)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Reading).decode


class MetricCache:
    """Readings in an SQLite file. Threads and processes may share it."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None

    def get(self, server: str, contents: Iterable[str]) -> dict[str, Reading]:
        """Content → what its metrics are, for those of ``contents`` that are known."""
        wanted = sorted(set(contents))
        found: dict[str, Reading] = {}
        with self._lock, self._harmless():
            db = self._open()
            for start in range(0, len(wanted), _AT_ONCE):
                rows = db.execute(
                    "SELECT content, CAST(reading AS BLOB) FROM readings WHERE server = ? AND parser = ?"
                    " AND content IN (SELECT value FROM json_each(?))",
                    (server, PARSER, json.dumps(wanted[start : start + _AT_ONCE])),
                )
                for content, stored in rows:
                    with contextlib.suppress(msgspec.MsgspecError):
                        if stored[:_MARK_BYTES] == _mark(server, content, stored[_MARK_BYTES:]):
                            found[content] = _decode(stored[_MARK_BYTES:])
        return found

    def put(self, server: str, readings: Mapping[str, Reading]) -> None:
        """Remember what the metrics of some contents are."""
        entries = [(server, content, PARSER, _encode(reading)) for content, reading in readings.items()]
        entries = [
            (server, content, parser, _mark(server, content, data) + data)
            for server, content, parser, data in entries
            if len(data) <= _MAX_ENTRY_BYTES
        ]
        if not entries:
            return
        with self._lock, self._harmless():
            db = self._open()
            db.execute("BEGIN IMMEDIATE")
            db.executemany(
                "INSERT OR REPLACE INTO readings (server, content, parser, reading) VALUES (?, ?, ?, ?)",
                entries,
            )
            self._make_room(db)
            db.execute("COMMIT")

    def _make_room(self, db: sqlite3.Connection) -> None:
        """The quarter that was entered first goes when all is too much."""
        used, free, size = (db.execute(f"PRAGMA {of}").fetchone()[0] for of in _SIZES)
        if (used - free) * size > self._max_bytes:
            db.execute(
                "DELETE FROM readings WHERE seq IN"
                " (SELECT seq FROM readings ORDER BY seq LIMIT (SELECT count(*) / 4 + 1 FROM readings))"
            )

    def _open(self) -> sqlite3.Connection:
        # A file that was deleted is still there for who has it open.
        if self._db is not None and not self._path.exists():
            self._close()
        if self._db is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5.0)
            # What a power cut leaves half written is known by its marks.
            self._db.execute("PRAGMA synchronous=OFF")
            self._db.execute(_SCHEMA)
        return self._db

    @contextlib.contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            _log.warning("the cache %s is made anew: %s", self._path, error)
            self._close()
            for part in ("", "-journal"):
                with contextlib.suppress(OSError):
                    self._path.with_name(self._path.name + part).unlink()

    def _close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()


def _mark(server: str, content: str, data: bytes) -> bytes:
    """What tells that an entry is whole, and of this content."""
    return blake3(f"{server}\0{content}\0".encode() + data).digest(_MARK_BYTES)
