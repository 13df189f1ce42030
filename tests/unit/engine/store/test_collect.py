"""Collection: what nothing refers to goes, and everything else stays, whoever works meanwhile."""

from __future__ import annotations

import itertools
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from kaos_backend.engine.errors import FailedPrecondition, Unknown
from kaos_backend.engine.store.bytes.objects import locate
from kaos_backend.engine.store.check import findings
from kaos_backend.engine.store.model import BranchKey, CommitKey
from kaos_backend.engine.store.space.collect import Collected, collect
from kaos_backend.engine.store.space.pace import Interrupted, Pace, Progress
from kaos_backend.engine.store.store import NewFile, Store
from kaos_backend.engine.store.trees.edit import Overlay

from .conftest import DATA, MASTER, content, put

SMALL = {f"/small/{i}": os.urandom(40_000) for i in range(8)}
INLINE = {"/tiny": b"inline in the database"}
LARGE = {"/large": os.urandom(1_300_000)}
KEPT = {"/kept/a": b"kept" * 20_000, "/kept/large": b"k" * 1_200_000, "/kept/tiny": b"t"}


def run(store: Store, dry_run: bool = False) -> Collected:
    """A whole collection; what went."""
    *_, told = collect(store, dry_run=dry_run)
    assert isinstance(told, Collected)
    return told


def drop(store: Store, commit: CommitKey) -> None:
    with store.write() as txn:
        txn.drop_commit_set(commit.id)


def files(store: Store) -> int:
    """Bytes of all files but the database's."""
    folders = (store.objects.packs, store.objects.loose, store.objects.tmp)
    return sum(path.stat().st_size for one in folders for path in one.rglob("*") if path.is_file())


def rows(store: Store, table: str) -> int:
    with store.read() as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_what_was_dropped_goes_in_bytes(store: Store) -> None:
    put(store, KEPT)
    before, known = (
        files(store),
        [rows(store, table) for table in ("objects", "small_objects", "trees", "packs")],
    )
    for new in (SMALL, INLINE, LARGE):
        last = put(store, new)
        said = run(store)
        assert said.objects == 0, "what a commit holds stays"
        drop(store, last)
        would = run(store, dry_run=True)
        assert files(store) > before or new is INLINE
        went = run(store)
        assert (went.objects, went.object_bytes) == (len(new), sum(map(len, new.values())))
        assert (would.objects, would.object_bytes, would.directories, would.freed_bytes) == (
            went.objects,
            went.object_bytes,
            went.directories,
            went.freed_bytes,
        )
    assert files(store) == before
    assert [rows(store, table) for table in ("objects", "small_objects", "trees", "packs")] == known
    assert findings(store) == []
    assert run(store) == Collected(), "nothing is left to collect"


def test_a_pack_that_is_mostly_dead_is_written_anew(store: Store) -> None:
    big = {f"/x/{i}": os.urandom(30_000) for i in range(20)}
    commit = put(store, big, finish=False)
    with store.upload() as upload:
        for i in range(15):
            upload.delete(f"/x/{i}", "")
        with store.write() as txn:
            txn.apply(commit, upload)
            txn.finish_commit(commit)
    told = run(store)
    assert told.objects == 15
    left = {path: body for path, body in big.items() if int(path[3:]) >= 15}
    assert content(store, commit) == left
    assert files(store) < sum(map(len, left.values())) + 1000
    assert findings(store) == []


def test_who_reads_an_old_pack_reads_on(store: Store) -> None:
    commit = put(store, SMALL)
    entry = next(one for one in store.walk(store.inspect_commit(commit).root) if one.kind == "file")
    with store.read() as db:
        at = locate(db, [entry.hash])[entry.hash]
        drop(store, commit)
        collecting = collect(store)
        assert any(one == Progress("wait", 0, 1) for one in itertools.islice(collecting, 2000))
        assert store.objects.small(db, at) == SMALL[entry.path]
    assert isinstance([*collecting][-1], Collected)
    assert files(store) == 0


def test_file_sets_are_kept_for_their_time(store: Store, tmp_path: Path) -> None:
    with store.upload() as upload:
        for path, body in {**SMALL, **LARGE}.items():
            upload.add(path, "", body)
        upload.seal()
        with store.write() as txn:
            root = txn.edit(None, upload.operations, upload)
        id_ = store.filesets.add(upload.operations, root)
    assert run(store).objects == 0
    using = store.filesets.get(id_)
    with store.upload() as upload, store.write() as txn:
        commit = txn.start_commit(MASTER)
        txn.apply(commit, upload, using.operations)
    assert content(store, commit) == {**SMALL, **LARGE}
    drop_open = [store.filesets.add([Overlay(root)], root)]
    del using
    drop(store, commit)
    assert run(store).objects == 0, "two file sets hold it"
    store.filesets._sets.clear()
    upload.operations.clear()
    assert drop_open
    assert run(store).objects == len(SMALL) + len(LARGE)


def test_what_an_upload_found_stays_for_it(store: Store) -> None:
    """It found its content present, which went before it was recorded: it does not notice."""
    first = put(store, {**SMALL, **LARGE, **INLINE})
    with store.upload() as upload:
        for path, body in {**SMALL, **LARGE, **INLINE}.items():
            upload.add(path, "", body)
        upload.seal()
        drop(store, first)
        collecting = collect(store)
        assert any(one == Progress("wait", 0, 1) for one in itertools.islice(collecting, 2000))
        with store.write() as txn:
            commit = txn.start_commit(MASTER)
            txn.apply(commit, upload)
            txn.finish_commit(commit)
    [*_, told] = collecting
    assert isinstance(told, Collected)
    assert told.objects == 0
    assert content(store, commit) == {**SMALL, **LARGE, **INLINE}
    assert findings(store) == []


def test_an_upload_does_not_count_on_what_is_condemned(store: Store) -> None:
    """It comes while a collection waits for another: it sends all anew, whatever then goes."""
    first = put(store, {**SMALL, **LARGE, **INLINE})
    earlier = store.upload()
    drop(store, first)
    collecting = collect(store)
    assert any(one == Progress("wait", 0, 1) for one in itertools.islice(collecting, 2000))
    with store.upload() as upload:
        for path, body in {**SMALL, **LARGE, **INLINE}.items():
            upload.add(path, "", body)
        upload.seal()
        earlier.__exit__(None, None, None)
        [*_] = collecting
        with store.write() as txn:
            commit = txn.start_commit(MASTER)
            txn.apply(commit, upload)
            txn.finish_commit(commit)
    assert content(store, commit) == {**SMALL, **LARGE, **INLINE}
    assert findings(store) == []


def test_a_listing_that_comes_again_while_it_is_condemned_stays(store: Store) -> None:
    """The same tree is written again, row for row, after it was found to be garbage."""
    first = put(store, KEPT)
    drop(store, first)
    collecting = collect(store)
    assert any(
        isinstance(one, Progress) and one.stage == "sweep" for one in itertools.islice(collecting, 2000)
    )
    again = put(store, KEPT)
    [*_] = collecting
    assert content(store, again) == KEPT
    assert findings(store) == []


def test_content_that_went_before_it_was_added_by_reference_is_refused(store: Store) -> None:
    first = put(store, LARGE)
    entry = store.stat(store.inspect_commit(first).root, "/large")
    drop(store, first)
    assert run(store).objects == 1
    with (
        store.stage([NewFile("/out", entry)], "tag") as staged,
        pytest.raises(Unknown, match="was deleted"),
        store.write() as txn,
    ):
        txn.adopt(staged)


def test_nothing_goes_while_a_directory_is_damaged(store: Store) -> None:
    kept = put(store, KEPT)
    drop(store, put(store, SMALL))
    with store.maintain() as db:
        db.execute("UPDATE trees SET node=zeroblob(9) WHERE key=?", (store.inspect_commit(kept).root,))
        db.execute("COMMIT")
    with pytest.raises(FailedPrecondition, match="damaged directory"):
        run(store)
    assert rows(store, "objects") == len(KEPT) + len(SMALL)


def test_an_upload_that_failed_leaves_nothing(store: Store) -> None:
    with store.upload() as upload:
        upload.add("/large", "", LARGE["/large"])
        upload.seal()
    assert files(store) > 0
    run(store)
    assert files(store) == 0


def test_it_stops_when_told_and_leaves_a_whole_store(store: Store) -> None:
    commit = put(store, KEPT)
    drop(store, put(store, {**SMALL, **LARGE}))
    pace = Pace()
    collecting = collect(store, pace)
    assert any(isinstance(one, Progress) and one.stage == "sweep" for one in collecting)
    pace.stop.set()
    with pytest.raises(Interrupted):
        [*_] = collecting
    assert content(store, commit) == KEPT
    assert run(store).objects + rows(store, "objects") >= len(KEPT)
    assert rows(store, "objects") == len(KEPT)


def test_it_does_not_wait_for_ever_for_an_upload(store: Store) -> None:
    drop(store, put(store, SMALL))
    with store.upload(), pytest.raises(Interrupted, match="left for later"):
        [*_] = collect(store, Pace(patience_s=0))
    assert run(store).objects == len(SMALL)


def test_a_check_that_waits_is_let_by(store: Store) -> None:
    drop(store, put(store, SMALL))
    collecting = collect(store, Pace(give_way=store.upkeep.wanted))
    next(collecting)
    found: list[object] = []
    check = threading.Thread(target=lambda: found.append(findings(store)))
    check.start()
    while not store.upkeep.wanted():
        check.join(0.01)
    with pytest.raises(Interrupted):
        [*_] = collecting
    check.join()
    assert found == [[]]


def test_the_database_of_an_earlier_version_is_rewritten_once(tmp_path: Path) -> None:
    """Those could not give room back; afterwards it is given back in steps."""
    with closing(sqlite3.connect(tmp_path / "engine.sqlite")) as db:
        db.execute("PRAGMA auto_vacuum=NONE")
        db.execute("CREATE TABLE old (id)")
    store = Store.open(tmp_path)
    with store.write() as txn:
        txn.create_repo(DATA)
    kept = put(store, KEPT)
    for expected in (2, 2):
        for number in range(40):
            # Each comes alone, so that it lies in the database.
            last = put(store, {f"/{number}": os.urandom(50_000)})
        for _ in range(40):
            head = store.inspect_branch(MASTER).head
            drop(store, head)
        told = run(store)
        assert told.objects == 40
        assert told.database_bytes > 40 * 50_000
        assert sum(path.stat().st_size for path in tmp_path.glob("engine.sqlite*")) < 500_000
        with store.read() as db:
            assert db.execute("PRAGMA auto_vacuum").fetchone()[0] == expected
    assert last != kept
    assert content(store, kept) == KEPT
    assert findings(store) == []
    store.close()


def test_writers_go_on_while_collections_follow_each_other(store: Store) -> None:
    """Uploads with common content, drops and collections at once; then all that is left is whole."""
    stop = threading.Event()
    failed: list[BaseException] = []
    kept: dict[CommitKey, dict[str, bytes]] = {}
    shared = [os.urandom(size) for size in (10, 30_000, 70_000, 1_100_000)]

    def write(number: int) -> None:
        try:
            for turn in range(12):
                body = {f"/{number}/{i}": one for i, one in enumerate(shared)} | {
                    f"/{number}/t": b"%d" % turn
                }
                commit = put_on(store, f"b{number}", body)
                if turn % 3 == 2:
                    kept[commit] = body
                else:
                    drop(store, commit)
        except BaseException as error:
            failed.append(error)
        finally:
            stop.set()

    def clean() -> None:
        try:
            while not stop.is_set():
                run(store)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    threads.append(threading.Thread(target=clean))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    run(store)
    for commit, body in kept.items():
        found = content(store, commit)
        assert body.items() <= found.items()
    assert findings(store) == []
    assert rows(store, "objects") == len({b for body in kept.values() for b in body.values()})


def put_on(store: Store, branch: str, body: dict[str, bytes]) -> CommitKey:
    with store.upload() as upload:
        upload.delete("/", "")
        for path, data in body.items():
            upload.add(path, "", data)
        upload.seal()
        with store.write() as txn:
            commit = txn.start_commit(BranchKey(DATA, branch))
            txn.apply(commit, upload)
            txn.finish_commit(commit)
    return commit
