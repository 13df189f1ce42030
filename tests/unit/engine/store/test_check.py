"""Check and repair of a whole store."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kaos_backend.engine.store.check import Finding, Progress, check, damaged_files, findings
from kaos_backend.engine.store.store import Store

from .conftest import DATA, content, put
from .test_damage import HURTS, PLACES, cut, flip, place, remove

LARGE = os.urandom(2 << 20)


@pytest.mark.parametrize("hurt", HURTS)
@pytest.mark.parametrize("where", PLACES)
def test_each_kind_of_damage_is_found_by_name(store: Store, where: str, hurt: str) -> None:
    files = PLACES[where]
    old = put(store, {"/f": files["/f"], "/d/copy": files["/f"]} | files)
    new = put(store, {"/new": b"n"})
    HURTS[hurt](store, place(store, files["/f"]))
    hash_ = place(store, files["/f"]).hash
    found = [one for one in findings(store) if one.object == hash_]
    assert {(one.repo, one.commit, one.path) for one in found} == {
        (DATA, new.id, "/f"),
        (DATA, new.id, "/d/copy"),
    }, "each path once, with the newest commit that holds it"
    assert not any(one.repaired for one in found)
    assert old != new
    root = store.inspect_commit(old).root
    assert "/d/copy" in damaged_files(store, root, "/")
    assert damaged_files(store, root, "/d/") == ["/d/copy"]
    put(store, {f"/again{path}": body for path, body in files.items()})
    assert findings(store) == []
    assert damaged_files(store, root, "/") == []


def test_a_sound_store_says_only_how_far_it_is(store: Store) -> None:
    put(store, {"/small": b"s", "/large": LARGE, "/d/middle": b"m" * 300_000})
    told = list(check(store))
    assert all(isinstance(one, Progress) for one in told)
    last = told[-1]
    assert isinstance(last, Progress)
    assert (last.objects, last.bytes) == (last.objects_total, last.bytes_total)
    assert last.bytes == len(LARGE) + 300_001


def test_what_no_commit_holds_is_checked_too(store: Store) -> None:
    """Or the next upload of it would be thought to be there already."""
    put(store, {"/f": LARGE})
    with store.write() as txn:
        txn.delete_repo(DATA, force=True)
        txn.create_repo(DATA)
    flip(store, place(store, LARGE))
    (found,) = findings(store)
    assert (found.repo, found.object) == (None, place(store, LARGE).hash)
    assert content(store, put(store, {"/f": LARGE})) == {"/f": LARGE}


@pytest.mark.parametrize("damage", [flip, cut, remove])
@pytest.mark.parametrize("where", ["pack", "loose"])
def test_inputs_that_are_laid_out_repair(store: Store, tmp_path: Path, where: str, damage: object) -> None:
    files = PLACES[where]
    commit = put(store, files)
    root = store.inspect_commit(commit).root
    assert root is not None
    store.materialize(root, "/", tmp_path / "trees" / ("0" * 64))
    assert callable(damage)
    damage(store, place(store, files["/f"]))
    found = findings(store, repair=True, laid_out=tmp_path / "trees")
    assert found
    assert all(one.repaired for one in found)
    assert content(store, commit) == files
    assert findings(store) == []


def test_laid_out_inputs_that_were_changed_repair_nothing(store: Store, tmp_path: Path) -> None:
    commit = put(store, {"/f": LARGE})
    root = store.inspect_commit(commit).root
    assert root is not None
    laid_out = tmp_path / "trees" / ("0" * 64)
    store.materialize(root, "/", laid_out)
    (laid_out / "f").chmod(0o644)
    (laid_out / "f").write_bytes(b"changed by a trial")
    remove(store, place(store, LARGE))
    (found,) = findings(store, repair=True, laid_out=tmp_path / "trees")
    assert not found.repaired
    assert list(store.objects.tmp.iterdir()) == []


def test_the_index_is_rebuilt_from_the_packs(store: Store) -> None:
    files = {f"/{i}": os.urandom(60_000) for i in range(5)}
    commit = put(store, files | {"/large": LARGE})
    with store.write() as txn:
        txn.db.execute("DELETE FROM objects")
    assert len(findings(store)) == 6
    found = findings(store, repair=True)
    assert len(found) == 6
    assert all(one.repaired for one in found)
    assert content(store, commit) == files | {"/large": LARGE}


def test_what_came_back_is_whole_again(store: Store, tmp_path: Path) -> None:
    """As when a disk was not mounted, or somebody put a pack back from his backup."""
    commit = put(store, {"/f": LARGE})
    loose = store.objects.loose_path(place(store, LARGE).hash)
    loose.rename(tmp_path / "away")
    assert len(findings(store)) == 1
    (tmp_path / "away").rename(loose)
    assert findings(store) == []
    assert not store.damage.any()
    assert content(store, commit) == {"/f": LARGE}


def test_a_damaged_listing_is_named(store: Store) -> None:
    commit = put(store, {"/a": b"a", "/d/b": b"b"})
    root = store.inspect_commit(commit).root
    assert root is not None
    key = next(ref.key for ref in store.load(root).dirs)
    with store.write() as txn:
        txn.db.execute("UPDATE trees SET node=zeroblob(length(node)) WHERE key=?", (key,))
    found = findings(store)
    assert [(one.path, one.commit, one.object) for one in found] == [("/d/", commit.id, key)]


def test_a_finding_reads_as_a_sentence(store: Store) -> None:
    finding = Finding(DATA, "abc", "/f", b"\1" * 32, "is gone", False)
    assert str(finding) == f"/f in repo default/data at commit abc: object {'01' * 32} is gone"
