"""Taking directories in and writing trees out."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest

from kaos_backend.engine.errors import EngineError, NotFound, Unknown
from kaos_backend.engine.store.check import findings
from kaos_backend.engine.store.store import NewFile, Store
from kaos_formats.folders import clean_up
from tests.support.files import ingest, new_files

from .conftest import put


@pytest.fixture
def source(tmp_path: Path) -> Path:
    top = tmp_path / "source"
    (top / "sub/deep").mkdir(parents=True)
    (top / "empty dir").mkdir()
    (top / "a.txt").write_bytes(b"a")
    (top / "sub/deep/b").write_bytes(b"b" * 2_000_000)
    (top / "sub/none").write_bytes(b"")
    return top


def files(top: Path) -> dict[str, bytes]:
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def test_in_and_out_again(store: Store, source: Path, tmp_path: Path) -> None:
    root = ingest(store, source, "datum")
    assert root is not None
    assert {entry.tag for entry in store.walk(root) if entry.kind == "file"} == {"datum"}
    dest = tmp_path / "cache" / "one"
    store.materialize(root, "/", dest)
    assert files(dest) == files(source)
    assert (dest / "a.txt").stat().st_mode & 0o777 == 0o444
    assert (dest / "sub").stat().st_mode & 0o777 == 0o555
    part = tmp_path / "cache" / "part"
    store.materialize(root, "/sub/deep", part)
    assert list(files(part)) == ["sub/deep/b"], "at its full path"
    store.materialize(root, "/a.txt", tmp_path / "cache" / "file")
    assert files(tmp_path / "cache" / "file") == {"a.txt": b"a"}
    with pytest.raises(NotFound):
        store.materialize(root, "/nope", tmp_path / "cache" / "nope")
    assert sorted(one.name for one in (tmp_path / "cache").iterdir()) == ["file", "one", "part"]
    clean_up(dest)
    assert not dest.exists()


def test_several_threads_may_want_the_same(store: Store, source: Path, tmp_path: Path) -> None:
    root = ingest(store, source, "d")
    assert root is not None
    dest = tmp_path / "cache" / "one"
    threads = [threading.Thread(target=store.materialize, args=(root, "/", dest)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files(dest) == files(source)
    assert [one.name for one in dest.parent.iterdir()] == ["one"]


def test_the_same_again_takes_no_room(store: Store, source: Path) -> None:
    first = ingest(store, source, "d")
    with store.read() as db:
        before = db.execute("SELECT COUNT(*) FROM objects").fetchone()[0]
    assert ingest(store, source, "d") == first
    with store.read() as db:
        assert db.execute("SELECT COUNT(*) FROM objects").fetchone()[0] == before
    assert list(store.objects.tmp.iterdir()) == []


def test_what_is_missing_of_some_contents(store: Store, source: Path) -> None:
    root = ingest(store, source, "d")
    known = store.stat(root, "/sub/deep/b")
    assert store.missing_bytes({known.hash: known.size_bytes, bytes(32): 7}) == 7


def test_an_empty_directory_is_no_tree(store: Store, tmp_path: Path) -> None:
    (tmp_path / "none" / "below").mkdir(parents=True)
    assert ingest(store, tmp_path / "none", "d") is None


@pytest.mark.parametrize("name", ["tränen", "a*b"])
def test_what_cannot_be_kept_is_named(store: Store, source: Path, name: str) -> None:
    (source / "sub" / name).write_bytes(b"")
    with pytest.raises(EngineError, match=re.escape(name)):
        ingest(store, source)
    assert findings(store) == []
    assert list(store.objects.tmp.iterdir()) == [], "nothing is left behind"


def test_a_file_of_another_tree_goes_in_by_reference(store: Store, source: Path) -> None:
    root = ingest(store, source)
    entry = store.stat(root, "/sub/deep/b")
    new = [NewFile("/copy", entry), NewFile("/none", store.stat(root, "/sub/none"))]
    with store.stage(new, "d") as staged:
        with store.write() as txn:
            copy = txn.adopt(staged)
        assert list(store.objects.tmp.iterdir()) == [], "not a byte of it was written again"
    assert b"".join(store.open_file(copy, "/copy")) == b"b" * 2_000_000
    assert b"".join(store.open_file(copy, "/none")) == b""
    assert findings(store) == []


def test_staged_files_wait_for_their_transaction(store: Store, source: Path) -> None:
    with store.stage(new_files(source), "d") as staged:
        assert staged.root is not None
        with pytest.raises(EngineError):
            list(store.walk(staged.root))
        with store.write() as txn:
            root = txn.adopt(staged)
    assert b"".join(store.open_file(root, "/a.txt")) == b"a"
    (source / "a.txt").write_bytes(os.urandom(100_000))
    with store.stage(new_files(source), "d"):
        assert len(list(store.objects.packs.iterdir())) == 1
    assert list(store.objects.packs.iterdir()) == [], "what was not adopted is gone"


def test_many_sizes_come_back(store: Store) -> None:
    sizes = [0, 1, 4095, 64 << 10, (64 << 10) + 1, (1 << 20) - 1, 1 << 20, (5 << 20) + 3]
    made = {f"/{size}": os.urandom(size) for size in sizes}
    commit = put(store, made)
    root = store.inspect_commit(commit).root
    for path, body in made.items():
        assert b"".join(store.open_file(root, path)) == body
        offset = len(body) // 2
        assert b"".join(store.read_object(store.stat(root, path).hash, offset)) == body[offset:]
    assert findings(store) == []


def test_what_cannot_be_read_is_named(store: Store) -> None:
    # A regular file by its kind, whose first page nobody can read.
    memory = Path("/proc/self/mem").open("rb", buffering=0)  # noqa: SIM115
    with memory, pytest.raises(Unknown, match="/m cannot be read"):
        store.stage([NewFile("/m", memory)], "t")
