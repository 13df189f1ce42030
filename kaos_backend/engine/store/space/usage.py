"""How the bytes of the store's files are shared out among those that refer to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from typing import TypeVar

from kaos_backend.engine.store.bytes.objects import INLINE_PACK, PACK_HEAD
from kaos_backend.engine.store.references import Marks
from kaos_backend.engine.store.space.mark import Marking
from kaos_backend.engine.store.space.pace import Pace
from kaos_backend.engine.store.store import Store

_Owner = TypeVar("_Owner", bound=Hashable)


def measure(
    store: Store, owned: Mapping[_Owner, Iterator[set[bytes]]], pace: Pace
) -> dict[frozenset[_Owner], int]:
    """Bytes in packs and large files by who refers to them, with what belongs to nobody under the empty set.

    `owned`: the trees of each owner, some at a time. What is in the database is not counted. It all comes to
    the bytes of the files, but for what is written meanwhile.

    Raises:
        FailedPrecondition: a directory is damaged.
    """
    marks: dict[_Owner, Marks] = {}
    for owner, trees in owned.items():
        marking = Marking(store, pace)
        for some in trees:
            for _ in marking.walk(some):
                pass
        for _ in marking.objects.settle():
            pace.rest()
        marks[owner] = marking.objects
    found: Counter[frozenset[_Owner]] = Counter()
    for number in range(256):
        with store.read() as db:
            rows = db.execute(
                "SELECT hash, pack, length FROM objects WHERE hash >= ? AND hash < ?", between(number)
            ).fetchall()
        for hash_, pack, length in rows:
            if pack != INLINE_PACK:
                owners = frozenset(owner for owner, marked in marks.items() if hash_ in marked)
                found[owners] += length if pack is None else length + PACK_HEAD.size
        pace.rest()
    folders = (store.objects.packs, store.objects.loose)
    files = sum(path.stat().st_size for one in folders for path in one.rglob("*") if path.is_file())
    # Records of packs that the index does not speak of, and files that an upload left.
    found[frozenset()] += max(0, files - sum(found.values()))
    return dict(found)


def between(number: int) -> tuple[bytes, bytes]:
    """The hashes with this first byte lie from the first of these up to the second."""
    return bytes([number]), bytes([number + 1]) if number < 255 else b"\xff" * 33
