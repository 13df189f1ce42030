"""File sets: temporary trees addressed by an id, kept in memory until their time is up.

Their objects and trees are durable like all others; only the names are forgotten at a restart.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from kaos_backend.engine.clock import Clock
from kaos_backend.engine.errors import NotFound, Unknown
from kaos_backend.engine.store.bytes.objects import EMPTY_HASH
from kaos_backend.engine.store.references import Held
from kaos_backend.engine.store.trees.edit import Copy, Operation, Overlay, Put

DEFAULT_TTL_S = 600
MAX_TTL_S = 1800


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class FileSet:
    """What a file set does to a tree (`operations`, in order) and what it is by itself (`root`)."""

    operations: tuple[Operation, ...]
    root: bytes | None


class FileSets:
    """The file sets alive, by id."""

    def __init__(self, clock: Clock, new_id: Callable[[], str]) -> None:
        self._clock = clock
        self._new_id = new_id
        self._sets: dict[str, tuple[FileSet, int]] = {}
        # Also those whose time ran out while somebody works with them.
        self._alive: weakref.WeakSet[FileSet] = weakref.WeakSet()
        self._pins: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, operations: Sequence[Operation], root: bytes | None, ttl_s: int = DEFAULT_TTL_S) -> str:
        """Keep a file set for `ttl_s` seconds (0: the default); return its id."""
        until = self._until(ttl_s)
        id_ = self._new_id()
        made = FileSet(tuple(operations), root)
        with self._lock:
            self._expire()
            self._sets[id_] = (made, until)
            self._alive.add(made)
        return id_

    def held(self) -> Iterator[Held]:
        """What the file sets alive refer to."""
        with self._lock:
            self._expire()
            alive = list(self._alive)
        for one in alive:
            copied = [done.source for done in one.operations if isinstance(done, Copy)]
            laid = [done.root for done in one.operations if isinstance(done, Overlay)]
            trees = {key for key in (one.root, *copied, *laid) if isinstance(key, bytes)}
            objects = {done.object for done in one.operations if isinstance(done, Put)} - {EMPTY_HASH}
            yield Held(tuple(trees), tuple(objects))

    def get(self, id_: str) -> FileSet:
        """NotFound when there is none, or its time is up."""
        with self._lock:
            self._expire()
            found = self._sets.get(id_)
        if found is None:
            raise NotFound(f"file set {id_} not found (it may have expired)")
        return found[0]

    def renew(self, id_: str, ttl_s: int) -> None:
        """Keep a file set for `ttl_s` seconds from now."""
        until = self._until(ttl_s, required=True)
        kept = self.get(id_)
        with self._lock:
            self._sets[id_] = (kept, until)

    def pin(self, ids: Iterable[str]) -> None:
        """Keep file sets until `unpin`, whatever their time. NotFound when one is not there."""
        with self._lock:
            self._expire()
            wanted = list(ids)
            if missing := [id_ for id_ in wanted if id_ not in self._sets]:
                raise NotFound(f"file set {missing[0]} not found (it may have expired)")
            self._pins.update(wanted)

    def unpin(self, ids: Iterable[str]) -> None:
        with self._lock:
            self._pins.subtract(ids)
            self._pins += Counter()

    def _until(self, ttl_s: int, required: bool = False) -> int:
        if ttl_s == 0 and not required:
            ttl_s = DEFAULT_TTL_S
        if ttl_s < 1:
            raise Unknown(f"ttl ({ttl_s}s) must be at least one second")
        if ttl_s > MAX_TTL_S:
            raise Unknown(f"ttl ({ttl_s}s) exceeds max ttl ({MAX_TTL_S}s)")
        return self._clock() + ttl_s * 1_000_000

    def _expire(self) -> None:
        now = self._clock()
        old = [id_ for id_, (_, until) in self._sets.items() if until < now]
        for id_ in (id_ for id_ in old if not self._pins[id_]):
            del self._sets[id_]
