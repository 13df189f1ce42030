"""What lies in packs, and packs that are mostly dead written anew without their dead."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from kaos_backend.engine.errors import DataLoss
from kaos_backend.engine.ids import new_id
from kaos_backend.engine.store.bytes.objects import PACK_HEAD, PACK_MAGIC, Location, locate, pack_records
from kaos_backend.engine.store.space.pace import Pace
from kaos_backend.engine.store.store import Store

_NEW_PACK_BYTES = 256 << 20
"""How much goes into one new pack, about."""
_WORTH_BYTES = 64 << 10
"""A pack with less that is dead (bytes) is left as it is."""
_AT_A_TIME = 500


@dataclass(frozen=True, slots=True)
class PackUse:
    """A pack: the bytes of its file, and those of them that belong to objects of the index."""

    id: int
    name: str
    size: int
    live: int

    @property
    def dead(self) -> int:
        return self.size - self.live

    @property
    def sparse(self) -> bool:
        """Whether it is worth while to write what lives anew."""
        return self.live > 0 and self.dead > self.live and self.dead >= _WORTH_BYTES


def uses(store: Store, going: Mapping[int, int] | None = None) -> list[PackUse]:
    """The packs of the index. `going`: bytes of records by pack that count as dead already."""
    going = going or {}
    with store.read() as db:
        names = db.execute("SELECT id, name FROM packs").fetchall()
        live = {
            row[0]: row[1] + row[2] * PACK_HEAD.size
            for row in db.execute(
                "SELECT pack, sum(length), count(*) FROM objects WHERE pack > 0 GROUP BY pack"
            )
        }
    found = []
    for id_, name in names:
        with suppress(FileNotFoundError):
            size = (store.objects.packs / name).stat().st_size
            found.append(PackUse(id_, name, size, live.get(id_, 0) - going.get(id_, 0)))
    return found


def repack(store: Store, sparse: Sequence[PackUse], pace: Pace) -> Iterator[int]:
    """Move what lives in these packs to new ones, and tell how many are done. They are empty afterwards,
    unless they hold damage: that stays where it is.
    """
    group: list[PackUse] = []
    done = 0
    for pack in sparse:
        group.append(pack)
        if sum(one.live for one in group) >= _NEW_PACK_BYTES or pack is sparse[-1]:
            yield from (done for _ in _write_anew(store, group, pace))
            done += len(group)
            group = []
            yield done


@dataclass(frozen=True, slots=True)
class _Move:
    old: Location
    offset: int


def _write_anew(store: Store, packs: Sequence[PackUse], pace: Pace) -> Iterator[None]:
    """The new pack is durable before a row speaks of it, as with every upload."""
    disk = store.objects.disk
    path = store.objects.packs / f"{new_id()}.pack"
    fd = disk.create(path)
    recorded = False
    try:
        disk.write(fd, PACK_MAGIC)
        end, moves = len(PACK_MAGIC), list[_Move]()
        for pack in packs:
            for living in _living(store, pack):
                parts: list[bytes] = []
                for at, data in living:
                    parts += (PACK_HEAD.pack(at.hash, at.length), data)
                    moves.append(_Move(at, end + PACK_HEAD.size))
                    end += PACK_HEAD.size + at.length
                disk.write(fd, b"".join(parts))
                pace.rest()
                yield
        if moves:
            disk.sync(fd)
            disk.sync_directory(store.objects.packs)
            new: int | None = None
            while part := moves[:_AT_A_TIME]:
                with store.maintain() as db:
                    if new is None:
                        new = db.execute("INSERT INTO packs (name) VALUES (?)", (path.name,)).lastrowid
                    _move(db, part, new)
                    db.execute("COMMIT")
                recorded = True
                del moves[:_AT_A_TIME]
                pace.rest()
                yield
    finally:
        os.close(fd)
        if not recorded:
            with suppress(OSError):
                path.unlink()


def _move(db: sqlite3.Connection, moves: Iterable[_Move], new: int | None) -> None:
    # What was removed, or healed elsewhere, meanwhile is not there any more.
    db.executemany(
        "UPDATE objects SET pack=?, offset=? WHERE hash=? AND pack=? AND offset=?",
        [(new, move.offset, move.old.hash, move.old.pack, move.old.offset) for move in moves],
    )


def _living(store: Store, pack: PackUse) -> Iterator[list[tuple[Location, bytes]]]:
    """What the index has in a pack, some at a time, in the order in which it lies. Damage is left out."""
    records = pack_records(store.objects.packs / pack.name)
    while part := list(islice(records, _AT_A_TIME)):
        found = []
        with store.read() as db:
            places = locate(db, [hash_ for hash_, _, _ in part])
            for hash_, offset, _ in part:
                at = places.get(hash_)
                if at is not None and (at.pack, at.offset) == (pack.id, offset):
                    with suppress(DataLoss):
                        found.append((at, store.objects.small(db, at)))
        yield found
