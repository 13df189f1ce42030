"""Large objects that come in several goes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from kaos_backend.engine.errors import DiskFull, Unknown
from kaos_backend.engine.store.check import findings
from kaos_backend.engine.store.space.collect import collect
from kaos_backend.engine.store.store import Received, Store

from .conftest import DATA, put
from .test_crash import Stopped, StoppingDisk
from .test_disk_full import FullDisk

PIECE = 300_000
OBJECT = os.urandom(5 * PIECE)
NAME = blake3(OBJECT).digest()


def pieces(start: int = 0, end: int = len(OBJECT)) -> Iterator[bytes]:
    for at in range(start, end, PIECE):
        yield OBJECT[at : min(at + PIECE, end)]


def receive(store: Store, offset: int = 0, end: int = len(OBJECT)) -> Received:
    return store.receive(NAME, len(OBJECT), offset, pieces(offset, end))


def held(store: Store) -> int:
    return store.partials.sizes([NAME]).get(NAME, 0)


def content(store: Store, received: Received) -> bytes:
    root = store.filesets.get(received.file_set).root
    [entry] = [one for one in store.walk(root) if one.kind == "file"]
    assert entry.path == f"/{NAME.hex()}"
    return b"".join(store.read_object(entry.hash))


def test_in_three_goes_with_a_restart_between_and_a_collection(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "engine")
    assert receive(store, 0, 400_000) == Received(400_000)
    assert receive(store, 400_000, 1_000_000) == Received(1_000_000)
    store.close()
    store = Store.open(tmp_path / "engine")
    list(collect(store))
    assert (held(store), store.find({NAME: len(OBJECT)})) == (1_000_000, (set(), ""))
    # What has room for the rest has room for all.
    assert store.missing_bytes({NAME: len(OBJECT)}) == len(OBJECT) - 1_000_000
    done = receive(store, 1_000_000)
    assert (done.size, content(store, done), held(store)) == (len(OBJECT), OBJECT, 0)
    assert findings(store) == []
    store.close()


def test_what_does_not_fit_is_not_joined(store: Store) -> None:
    receive(store, 0, 400_000)
    assert receive(store, 500_000) == Received(400_000)
    assert receive(store, 300_000) == Received(400_000)
    # From the beginning is always right.
    assert receive(store, 0, 200_000) == Received(200_000)
    assert content(store, receive(store, 200_000)) == OBJECT


def test_a_stream_that_raises_keeps_what_has_come(store: Store) -> None:
    def broken() -> Iterator[bytes]:
        yield from pieces(0, 600_000)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        store.receive(NAME, len(OBJECT), 0, broken())
    assert held(store) == 600_000


def test_another_content_is_found_out_and_gone(store: Store) -> None:
    other = store.receive(NAME, len(OBJECT), 0, iter([bytes(len(OBJECT))]))
    assert (other, held(store)) == (Received(0, differs=True), 0)
    with pytest.raises(Unknown, match="more came"):
        store.receive(NAME, len(OBJECT), 0, iter([OBJECT, b"x"]))
    assert held(store) == 0
    assert store.stored_bytes() == 0


def test_two_at_a_time(store: Store) -> None:
    inner: list[Received] = []

    def interrupted() -> Iterator[bytes]:
        yield OBJECT[:PIECE]
        assert held(store) == 0  # it comes right now
        inner.extend((receive(store, PIECE), receive(store, 0, PIECE), receive(store)))
        yield from pieces(PIECE)

    done = store.receive(NAME, len(OBJECT), 0, interrupted())
    assert inner[:2] == [Received(0), Received(0)]
    assert content(store, inner[2]) == content(store, done) == OBJECT
    assert list((store.root / "partial").iterdir()) == list(store.objects.tmp.iterdir()) == []
    assert findings(store) == []


def test_a_full_disk_gets_all_of_it_back(tmp_path: Path) -> None:
    disk = FullDisk()
    store = Store.open(tmp_path / "engine", disk=disk)
    disk.room = 2 * PIECE
    with pytest.raises(DiskFull):
        receive(store)
    assert list((store.root / "partial").iterdir()) == []
    store.close()


def test_killed_before_each_step(tmp_path: Path) -> None:
    step, done = 0, False
    while not done:
        disk = StoppingDisk()
        store = Store.open(tmp_path / str(step), disk=disk)
        with store.write() as txn:
            txn.create_repo(DATA)
        put(store, {"/other": b"x" * (2 << 20)})
        disk.left = step
        try:
            receive(store)
            done = True
        except Stopped:
            pass
        disk.left = 10**9
        store.close()
        store = Store.open(tmp_path / str(step))
        known = done or bool(store.find({NAME: len(OBJECT)})[0])
        if not known:
            assert content(store, receive(store, held(store))) == OBJECT
        assert findings(store) == []
        store.close()
        step += 1
    assert step > 8
