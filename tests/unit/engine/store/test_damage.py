"""What leaves the store is what was put in: damage is met by name, and heals when the content comes again."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from kaos_backend.engine.errors import DataLoss, FailedPrecondition
from kaos_backend.engine.store.bytes.objects import INLINE_PACK, Location, locate
from kaos_backend.engine.store.store import Store

from .conftest import DATA, content, put

# One of each kind of place: the database, a pack, a loose file of one piece and one of many.
PLACES = {"inline": {"/f": b"i" * 5_000}, "pack": {"/f": b"p" * 300_000, "/other": b"o" * 200_000}}
PLACES |= {"loose": {"/f": os.urandom(2 << 20)}, "large": {"/f": os.urandom(9 << 20)}}


def place(store: Store, body: bytes) -> Location:
    from blake3 import blake3

    hash_ = blake3(body).digest()
    with store.read() as db:
        return locate(db, [hash_])[hash_]


def pack_path(store: Store, at: Location) -> Path:
    with store.read() as db:
        return store.objects.packs / db.execute("SELECT name FROM packs WHERE id=?", (at.pack,)).fetchone()[0]


def flip(store: Store, at: Location) -> None:
    """Change the last byte of an object."""
    if at.pack == INLINE_PACK:
        with store.write() as txn:
            old = txn.db.execute("SELECT data FROM small_objects WHERE hash=?", (at.hash,)).fetchone()[0]
            new = old[:-1] + bytes([old[-1] ^ 1])
            txn.db.execute("UPDATE small_objects SET data=? WHERE hash=?", (new, at.hash))
        return
    path = store.objects.loose_path(at.hash) if at.pack is None else pack_path(store, at)
    with path.open("r+b") as file:
        file.seek(at.offset + at.length - 1)
        old = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([old[0] ^ 1]))


def cut(store: Store, at: Location) -> None:
    if at.pack == INLINE_PACK:
        with store.write() as txn:
            txn.db.execute("UPDATE small_objects SET data=? WHERE hash=?", (b"short", at.hash))
        return
    path = store.objects.loose_path(at.hash) if at.pack is None else pack_path(store, at)
    os.truncate(path, at.offset + at.length // 2)


def remove(store: Store, at: Location) -> None:
    if at.pack == INLINE_PACK:
        with store.write() as txn:
            txn.db.execute("DELETE FROM small_objects WHERE hash=?", (at.hash,))
        return
    (store.objects.loose_path(at.hash) if at.pack is None else pack_path(store, at)).unlink()
    store.objects.close()


HURTS = {"flip": flip, "cut": cut, "remove": remove}


@pytest.mark.parametrize("hurt", HURTS.values(), ids=HURTS)
@pytest.mark.parametrize("files", PLACES.values(), ids=PLACES)
def test_damage_is_named_and_heals(
    store: Store, tmp_path: Path, files: dict[str, bytes], hurt: Callable[[Store, Location], None]
) -> None:
    commit = put(store, files)
    root = store.inspect_commit(commit).root
    assert root is not None
    at = place(store, files["/f"])
    hurt(store, at)

    with pytest.raises(
        DataLoss, match=f"^/f is damaged: object {at.hash.hex()} .*send the same content"
    ) as told:
        list(store.open_file(root, "/f"))
    assert told.value.where == "/f"
    with pytest.raises(DataLoss):
        list(store.read_object(at.hash, offset=at.length // 2))
    dest = tmp_path / "inputs" / "one"
    with pytest.raises(DataLoss, match="/f is damaged"):
        store.materialize(root, "/", dest)
    assert list(dest.parent.iterdir()) == [], "nothing half laid out stays"

    # A file that is cut or gone takes all that it held with it.
    for entry in store.walk(root):
        if entry.kind == "file":
            with suppress(DataLoss):
                list(store.read_object(entry.hash))
    copies = {f"/copy{path}": body for path, body in files.items()}
    assert content(store, put(store, copies)) == files | copies
    store.materialize(root, "/", dest)
    assert (dest / "f").read_bytes() == files["/f"]
    assert not store.damage.any()
    store.close()
    opened = Store.open(store.root)
    assert content(opened, commit) == files, "what healed outlasts a restart, and so does its place"
    opened.close()


@pytest.mark.parametrize("files", PLACES.values(), ids=PLACES)
def test_what_is_known_to_be_damaged_outlasts_a_restart(store: Store, files: dict[str, bytes]) -> None:
    commit = put(store, files)
    at = place(store, files["/f"])
    flip(store, at)
    with pytest.raises(DataLoss):
        list(store.read_object(at.hash))
    store.close()
    opened = Store.open(store.root)
    assert opened.damage.among([at.hash]) == {at.hash}
    put(opened, {"/f2": files["/f"]})
    assert content(opened, commit) == files
    opened.close()


def test_a_large_object_is_withheld_before_its_end(store: Store) -> None:
    body = os.urandom(9 << 20)
    put(store, {"/f": body})
    flip(store, place(store, body))
    got = []
    with pytest.raises(DataLoss):
        got.extend(store.read_object(place(store, body).hash))
    assert sum(map(len, got)) < len(body)


def test_a_loose_object_heals_in_a_file_of_its_own(store: Store) -> None:
    """Whoever still reads, or has linked, the damaged one must not see it change under him."""
    body = os.urandom(2 << 20)
    put(store, {"/f": body})
    at = place(store, body)
    path = store.objects.loose_path(at.hash)
    flip(store, at)
    before = path.stat().st_ino
    with pytest.raises(DataLoss):
        list(store.read_object(at.hash))
    put(store, {"/g": body})
    assert path.read_bytes() == body
    assert path.stat().st_ino != before


def test_a_range_is_checked_and_the_check_is_remembered_until_the_file_changes(store: Store) -> None:
    body = os.urandom(9 << 20)
    put(store, {"/f": body})
    at = place(store, body)
    assert b"".join(store.read_object(at.hash, offset=at.length - 10)) == body[-10:]
    flip(store, at)
    with pytest.raises(DataLoss):
        list(store.read_object(at.hash, offset=at.length - 10))


def test_a_whole_read_trusts_no_earlier_one(store: Store) -> None:
    """A disk that rots tells nobody: neither size nor time change."""
    body = os.urandom(9 << 20)
    put(store, {"/f": body})
    at = place(store, body)
    path = store.objects.loose_path(at.hash)
    assert b"".join(store.read_object(at.hash)) == body
    before = path.stat()
    flip(store, at)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataLoss):
        list(store.read_object(at.hash))


def test_a_damaged_directory_is_named_and_heals(store: Store) -> None:
    files = {"/d/a": b"a", "/d/b": b"b"}
    commit = put(store, files)
    with store.write() as txn:
        txn.db.execute("UPDATE trees SET node=zeroblob(length(node))")
    store.close()
    opened = Store.open(store.root)
    with pytest.raises(DataLoss, match="listing of a directory"):
        list(opened.walk(opened.inspect_commit(commit).root))
    with opened.write() as txn:
        txn.delete_repo(DATA, force=True)
        txn.create_repo(DATA)
    assert content(opened, put(opened, files)) == files
    opened.close()


def test_an_append_to_damaged_content_leaves_nothing(store: Store) -> None:
    body = os.urandom(2 << 20)
    put(store, {"/f": body})
    flip(store, place(store, body))
    with pytest.raises(DataLoss):
        put(store, {"/f": b"more"})
    assert list(store.objects.tmp.iterdir()) == []
    assert store.damage.any()


@pytest.mark.parametrize("files", [PLACES["pack"], PLACES["loose"]], ids=["pack", "loose"])
def test_content_whose_database_is_gone_is_not_swept_away(store: Store, files: dict[str, bytes]) -> None:
    put(store, files)
    store.close()
    kept = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    database = {path: body for path, body in kept.items() if path.name.startswith("engine.sqlite")}
    for path in database:
        path.unlink()
    with pytest.raises(FailedPrecondition, match="put it back"):
        Store.open(store.root)
    for path, body in database.items():
        path.write_bytes(body)
    opened = Store.open(store.root)
    assert {path: path.read_bytes() for path in kept if path not in database} == {
        path: body for path, body in kept.items() if path not in database
    }
    opened.close()
