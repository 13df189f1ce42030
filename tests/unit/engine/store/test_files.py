"""Taking directories in and writing trees out."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from kaos_backend.engine.errors import EngineError, NotFound, Unknown
from kaos_backend.engine.store.check import check_store
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.store.trees.files import remove_tree

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
    root = store.ingest(source, "datum")
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
    remove_tree(dest)
    assert not dest.exists()


def test_several_threads_may_want_the_same(store: Store, source: Path, tmp_path: Path) -> None:
    root = store.ingest(source, "d")
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
    first = store.ingest(source, "d")
    with store.read() as db:
        before = db.execute("SELECT COUNT(*) FROM objects").fetchone()[0]
    assert store.ingest(source, "d") == first
    with store.read() as db:
        assert db.execute("SELECT COUNT(*) FROM objects").fetchone()[0] == before
    assert list(store.objects.tmp.iterdir()) == []


def test_an_empty_directory_is_no_tree(store: Store, tmp_path: Path) -> None:
    (tmp_path / "none" / "below").mkdir(parents=True)
    assert store.ingest(tmp_path / "none", "d") is None


def test_links_are_followed(store: Store, source: Path, tmp_path: Path) -> None:
    (source / "link").symlink_to(source / "a.txt")
    (source / "dirlink").symlink_to("sub")
    root = store.ingest(source, "d")
    assert b"".join(store.open_file(root, "/link")) == b"a"
    assert store.stat(root, "/dirlink/deep/b").size_bytes == 2_000_000


@pytest.mark.parametrize("kind", ["dangling", "loop", "socket", "pipe", "name", "glob"])
def test_what_cannot_be_kept_is_named(store: Store, source: Path, kind: str) -> None:
    name = {"name": "tränen", "glob": "a*b"}.get(kind, kind)
    odd = source / "sub" / name
    if kind == "dangling":
        odd.symlink_to("/does/not/exist")
    elif kind == "loop":
        odd.symlink_to(source)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(os.path.relpath(odd))
    elif kind == "pipe":
        os.mkfifo(odd)
    else:
        odd.write_bytes(b"")
    with pytest.raises(EngineError, match="tr|a\\*b" if kind in ("name", "glob") else kind):
        store.ingest(source, "d")
    assert list(check_store(store)) == []
    assert list(store.objects.tmp.iterdir()) == [], "nothing is left behind"


def test_staged_files_wait_for_their_transaction(store: Store, source: Path) -> None:
    with store.stage(source, "d") as staged:
        assert staged.root is not None
        with pytest.raises(EngineError):
            list(store.walk(staged.root))
        with store.write() as txn:
            root = txn.adopt(staged)
    assert b"".join(store.open_file(root, "/a.txt")) == b"a"
    (source / "a.txt").write_bytes(os.urandom(100_000))
    with store.stage(source, "d"):
        assert len(list(store.objects.packs.iterdir())) == 1
    assert list(store.objects.packs.iterdir()) == [], "what was not adopted is gone"


def test_the_cache_does_not_outlive_the_boot(store: Store, source: Path, tmp_path: Path) -> None:
    root = store.ingest(source, "d")
    assert root is not None
    cache = store.root / "trees"
    store.materialize(root, "/", cache / "one")
    store.close()
    again = Store.open(store.root)
    assert (cache / "one").is_dir(), "a restart keeps it"
    again.close()
    (cache / ".boot").write_text("another boot")
    Store.open(store.root).close()
    assert not (cache / "one").exists()


def test_many_sizes_come_back(store: Store) -> None:
    sizes = [0, 1, 4095, 64 << 10, (64 << 10) + 1, (1 << 20) - 1, 1 << 20, (5 << 20) + 3]
    made = {f"/{size}": os.urandom(size) for size in sizes}
    commit = put(store, made)
    root = store.inspect_commit(commit).root
    for path, body in made.items():
        assert b"".join(store.open_file(root, path)) == body
        offset = len(body) // 2
        assert b"".join(store.read_object(store.stat(root, path).hash, offset)) == body[offset:]
    assert list(check_store(store, read_content=True)) == []


def test_what_cannot_be_read_is_named(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "out"
    source.mkdir()
    # A regular file by its kind, whose first page nobody can read.
    (source / "memory").symlink_to("/proc/self/mem")
    with pytest.raises(Unknown, match="/memory cannot be read"):
        store.stage(source, "t")
