"""What is known to be damaged or gone. It counts as absent, so that the same content is taken again."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable

from kaos_backend.engine.errors import DataLoss


class Damage:
    """The damaged objects of one store: what each read found, until the content comes again.

    `save` makes a find outlast the process; it may fail, as every find can be made again.
    """

    def __init__(self, save: Callable[[bytes, str], None]) -> None:
        self._save = save
        self._found: dict[bytes, str] = {}
        self._lock = threading.Lock()

    def load(self, db: sqlite3.Connection) -> None:
        """Take up what earlier processes found."""
        with self._lock:
            self._found.update((row[0], row[1]) for row in db.execute("SELECT hash, what FROM damaged"))

    def note(self, object_: bytes, what: str) -> DataLoss:
        """Remember a find; return the error to raise for it."""
        with self._lock:
            known = self._found.get(object_) == what
            self._found[object_] = what
        if not known:
            self._save(object_, what)
        return DataLoss(object_, what)

    def among(self, objects: Iterable[bytes]) -> set[bytes]:
        """Those of `objects` that are damaged."""
        with self._lock:
            return {one for one in objects if one in self._found} if self._found else set()

    def any(self) -> bool:
        with self._lock:
            return bool(self._found)

    def what(self, object_: bytes) -> str:
        """What is wrong with an object; empty when nothing is known to be."""
        with self._lock:
            return self._found.get(object_, "")

    def healed(self, objects: Iterable[bytes]) -> None:
        """Forget finds whose content is whole again (their rows went in the same transaction)."""
        with self._lock:
            for one in objects:
                self._found.pop(one, None)


def record(db: sqlite3.Connection, object_: bytes, what: str) -> None:
    db.execute("INSERT OR REPLACE INTO damaged (hash, what) VALUES (?,?)", (object_, what))


def erase(db: sqlite3.Connection, objects: Iterable[bytes]) -> None:
    db.executemany("DELETE FROM damaged WHERE hash=?", [(one,) for one in objects])
