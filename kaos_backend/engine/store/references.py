"""What the content of a store is referred to by: the roots, and those who are about to refer to something.

Garbage is what nothing here leads to; `space.collect` finds and removes it.
"""

from __future__ import annotations

import itertools
import threading
import time
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol
from weakref import WeakSet

_POLL_S = 0.02


class Column(NamedTuple):
    """A column that holds keys of trees, or NULL. Its table has rowids."""

    table: str
    column: str


class Held(NamedTuple):
    """What is referred to from memory: trees and single objects."""

    trees: tuple[bytes, ...] = ()
    objects: tuple[bytes, ...] = ()


class Holder(Protocol):
    """Refers to content from memory. It holds a lease while it learns of what it then refers to."""

    def held(self) -> Iterable[Held]: ...


class Roots:
    """The one registry of what keeps content alive; each layer adds its own when it is put together.

    Attributes:
        columns: what the database refers to. Changes of them are seen in the transaction that makes them.
    """

    def __init__(self) -> None:
        self.columns: list[Column] = [Column("commits", "root")]
        self._holders: WeakSet[Holder] = WeakSet()

    def hold(self, holder: Holder) -> None:
        """From now on, and for as long as it lives, `holder` is asked at each collection."""
        self._holders.add(holder)

    def held(self) -> list[Held]:
        """What is referred to from memory."""
        return [one for holder in list(self._holders) for one in holder.held()]


class Lease:
    """Somebody may have found content that nothing refers to yet, or any more, and counts on it.

    Let go of it when the reference is written, or not wanted any more.
    """

    def __init__(self, leases: Leases, ticket: int) -> None:
        self._leases = leases
        self._ticket = ticket

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Afterwards a no-op."""
        self._leases.drop(self._ticket)

    # One that is forgotten would keep everything for ever.
    __del__ = release


class Leases:
    """The leases of one store. A collection removes nothing before those have ended that were taken before
    it told everybody what it is going to remove.
    """

    def __init__(self) -> None:
        self._tickets = itertools.count()
        self._held: dict[int, float | None] = {}
        self._lock = threading.Lock()

    def take(self, patience_s: float | None = None) -> Lease:
        """`patience_s`: how long a collection waits for this one at most; None: until it ends.

        With a limit it is for readers alone, whom it may cost an error but nothing that is stored.
        """
        with self._lock:
            ticket = next(self._tickets)
            self._held[ticket] = None if patience_s is None else time.monotonic() + patience_s
        return Lease(self, ticket)

    def drop(self, ticket: int) -> None:
        # Not under the lock: a lease may be forgotten while this very thread has it.
        self._held.pop(ticket, None)

    def count(self) -> int:
        """How many there are that a collection would wait for."""
        return sum(self._waited_for(until) for until in list(self._held.values()))

    def wait(self) -> Iterator[int]:
        """Wait until all that are held now have ended, and tell again and again how many are left."""
        with self._lock:
            before = next(self._tickets)
        while True:
            held = list(self._held.items())
            left = sum(ticket < before and self._waited_for(until) for ticket, until in held)
            if not left:
                return
            yield left
            time.sleep(_POLL_S)

    @staticmethod
    def _waited_for(until: float | None) -> bool:
        return until is None or time.monotonic() < until


class Turns:
    """Checks and collections: one at a time. What runs by itself makes room when somebody waits."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._count = threading.Lock()
        self._waiting = 0

    def wanted(self) -> bool:
        """Whether somebody waits for a turn."""
        return self._waiting > 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        for _ in self.wait():
            pass
        try:
            yield
        finally:
            self.end()

    def wait(self) -> Iterator[None]:
        """Until it is one's turn, which is to be ended; tells again and again that it is not yet."""
        self._add(1)
        try:
            while not self._turn.acquire(timeout=_POLL_S):
                yield
        finally:
            self._add(-1)

    def end(self) -> None:
        self._turn.release()

    def _add(self, count: int) -> None:
        with self._count:
            self._waiting += count


class Marks:
    """A set of hashes, made for millions: of each the first eight bytes, in one array for each first byte.

    Two hashes that agree in these are taken for one. So a piece of garbage may be kept (one in 10^13 among a
    million objects), and never anything be lost.
    """

    def __init__(self) -> None:
        self._parts = [array("Q") for _ in range(256)]
        # Those that came after `settle`.
        self._late: set[int] | None = None

    def add(self, hashes: Iterable[bytes]) -> None:
        """By one thread at a time."""
        if self._late is not None:
            self._late.update(int.from_bytes(hash_[:8]) for hash_ in hashes)
            return
        parts = self._parts
        for hash_ in hashes:
            parts[hash_[0]].append(int.from_bytes(hash_[:8]))

    def settle(self) -> Iterator[None]:
        """Make it answer. In 256 steps, none of which takes long; by then nothing may be added."""
        for number, part in enumerate(self._parts):
            self._parts[number] = array("Q", sorted(set(part)))
            yield
        self._late = set()

    def __contains__(self, hash_: bytes) -> bool:
        value = int.from_bytes(hash_[:8])
        part = self._parts[hash_[0]]
        at = bisect_left(part, value)
        return (at < len(part) and part[at] == value) or (self._late is not None and value in self._late)
