"""Files taken in where they lie: what becomes of them, and what a folder that changes meanwhile does not
become.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from kaos_backend.engine.errors import Changed, DiskFull, EngineError, InvalidArgument, NoHandover
from kaos_backend.engine.store.bytes.disk import Disk
from kaos_backend.engine.store.bytes.objects import PACK_HEAD, PACK_MAGIC
from kaos_backend.engine.store.check import findings
from kaos_backend.engine.store.model import CommitKey
from kaos_backend.engine.store.names import file_path, file_paths
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.store.trees.build import TreeBuilder
from kaos_backend.engine.store.trees.edit import Overlay, TreeEditor
from kaos_backend.engine.store.trees.nodes import EMPTY
from kaos_formats.handover import File, Folder

from .conftest import DATA, MASTER, content
from .test_crash import orphans, stop_in_every_gap
from .test_disk_full import FullDisk

LARGE = 1_500_000
FILES = {
    "a-b/2": b"2" * 5000,
    "a/1": b"1" * 5000,
    "a/c/empty": b"",
    "a/large": b"L" * LARGE,
    "z": b"z" * 70_000,
}


def lay_out(top: Path, files: Mapping[str, bytes]) -> Path:
    for path, data in files.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(data)
    return top


def listed(top: Path, **about: str) -> list[File]:
    found = []
    for path in sorted(str(p.relative_to(top)) for p in top.rglob("*") if p.is_file()):
        status = (top / path).stat()
        found.append(
            File(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, **about)
        )
    return found


def take(store: Store, top: Path, files: list[File]) -> tuple[str, bytes]:
    """The file set, and all hashes."""
    with store.ingest(Folder.of(top)) as taking:
        hashes = b"".join(taken.hashes for taken in taking.take(files))
        return store.keep(taking), hashes


def commit(store: Store, file_set: str) -> CommitKey:
    root = store.filesets.get(file_set).root
    with store.upload() as upload, store.write() as txn:
        key = txn.start_commit(MASTER)
        txn.apply(key, upload, [Overlay(root)])
        txn.finish_commit(key)
    return key


def test_a_folder_becomes_a_file_set(store: Store, tmp_path: Path) -> None:
    top = lay_out(tmp_path / "folder", FILES)
    file_set, hashes = take(store, top, listed(top))
    assert content(store, commit(store, file_set)) == {f"/{path}": data for path, data in FILES.items()}
    assert hashes == b"".join(blake3(FILES[path]).digest() for path in sorted(FILES))
    assert findings(store) == []


def test_what_is_there_already_is_not_read(store: Store, tmp_path: Path) -> None:
    top = lay_out(tmp_path / "folder", FILES)
    files = listed(top)
    _, hashes = take(store, top, files)
    for number, file in enumerate(files):
        file.hash = hashes[32 * number : 32 * number + 32].hex()
        (top / file.path).unlink()
    with store.ingest(Folder.of(top)) as taking:
        assert [taken.read_bytes for taken in taking.take(files)] == [0]
        again = store.keep(taking)
        assert taking.new() == (0, 0)
    assert content(store, commit(store, again)) == {f"/{path}": data for path, data in FILES.items()}


def test_content_that_is_there_more_than_once(store: Store, tmp_path: Path) -> None:
    files = {f"{n:04}": f"{n % 1050}".encode() * 5 for n in range(1500)}
    top = lay_out(tmp_path / "folder", files)
    listing = listed(top)
    with store.ingest(Folder.of(top)) as taking:
        for start in range(0, len(listing), 600):
            *_, taken = taking.take(listing[start : start + 600])
            paths = [file.path for file in listing[start : start + 600]]
            assert taken.hashes == b"".join(blake3(files[path]).digest() for path in paths)
        store.keep(taking)
        assert taking.new() == (1500, sum(map(len, files.values())))
    (pack,) = store.objects.packs.iterdir()
    distinct = set(files.values())
    assert pack.stat().st_size == len(PACK_MAGIC) + sum(PACK_HEAD.size + len(data) for data in distinct)
    assert findings(store) == []


def test_damaged_content_is_taken_anew(store: Store, tmp_path: Path) -> None:
    top = lay_out(tmp_path / "folder", FILES)
    files = listed(top)
    _, hashes = take(store, top, files)
    digest = blake3(FILES["a/large"]).digest()
    store.objects.loose_path(digest).unlink()
    store.damage.note(digest, "is gone")
    for number, file in enumerate(files):
        file.hash = hashes[32 * number : 32 * number + 32].hex()
    take(store, top, files)
    assert not store.damage.any()
    assert findings(store) == []


def swap_folder(top: Path) -> None:
    (top / "a").rename(top.parent / "elsewhere")
    (top / "a").symlink_to(top.parent / "elsewhere")


def swap_file(top: Path) -> None:
    (top / "z").rename(top.parent / "z")
    (top / "z").symlink_to(top.parent / "z")


def same_size(top: Path) -> None:
    status = (top / "z").stat()
    (top / "z").write_bytes(b"y" * status.st_size)
    # Whoever sets a time back cannot set that of the change back.
    os.utime(top / "z", ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        lambda top: (top / "a/1").write_bytes(b"other"),
        lambda top: os.truncate(top / "a/large", LARGE - 1),
        lambda top: os.truncate(top / "a/large", LARGE + 1),
        lambda top: (top / "z").unlink(),
        lambda top: ((top / "z").unlink(), (top / "z").mkdir()),
        lambda top: ((top / "z").unlink(), os.mkfifo(top / "z")),
        lambda top: ((top / "a/large").unlink(), os.mkfifo(top / "a/large")),
        same_size,
        swap_folder,
        swap_file,
    ],
)
def test_what_changed_since_it_was_listed(
    store: Store, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    top = lay_out(tmp_path / "folder", FILES)
    files = listed(top)
    change(top)
    with pytest.raises(Changed):
        take(store, top, files)
    assert kept_nothing(store)


def kept_nothing(store: Store) -> bool:
    with store.read() as db:
        rows = db.execute("SELECT (SELECT count(*) FROM objects) + (SELECT count(*) FROM trees)").fetchone()[
            0
        ]
    return rows == 0 and not orphans(store) and not list(store.objects.tmp.iterdir())


class Meddling(Disk):
    """Something happens to the file in the midst of its copy."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def copy(self, source: int, target: int, offset: int, length: int) -> int:
        copied = super().copy(source, target, offset, length // 2 + 1)
        self.act()
        return copied


@pytest.mark.parametrize("size", [LARGE // 2, 2 * LARGE])
def test_a_large_file_changes_while_it_is_copied(tmp_path: Path, size: int) -> None:
    top = lay_out(tmp_path / "folder", {"large": b"L" * LARGE})
    files = listed(top)
    store = Store.open(tmp_path / "engine", disk=Meddling(lambda: os.truncate(top / "large", size)))
    with pytest.raises(Changed, match="large changed while it was being read"):
        take(store, top, files)
    assert kept_nothing(store)
    store.close()


def test_what_the_kernel_does_not_copy(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, "other file system")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    top = lay_out(tmp_path / "folder", FILES)
    file_set, _ = take(store, top, listed(top))
    assert content(store, commit(store, file_set)) == {f"/{path}": data for path, data in FILES.items()}


def test_a_path_that_climbs_out(store: Store, tmp_path: Path) -> None:
    lay_out(tmp_path, {"secret": b"s"})
    top = lay_out(tmp_path / "folder", {"fine": b"f"})
    status = (tmp_path / "secret").stat()
    for source in ("../secret", "/etc/../secret", "x/../../secret", str(tmp_path / "secret")):
        file = File("x", 1, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, source=source)
        with pytest.raises(EngineError):
            take(store, top, [file])
    assert kept_nothing(store)


def test_another_folder_in_its_place(store: Store, tmp_path: Path) -> None:
    top = lay_out(tmp_path / "folder", FILES)
    folder = Folder.of(top)
    top.rename(tmp_path / "moved")
    lay_out(tmp_path / "folder", FILES)
    with pytest.raises(NoHandover), store.ingest(folder):
        pass


def test_what_comes_in_no_order(store: Store, tmp_path: Path) -> None:
    top = lay_out(tmp_path / "folder", FILES)
    for files in (listed(top)[::-1], [*listed(top), listed(top)[-1]]):
        with pytest.raises(InvalidArgument, match="sorted by path"):
            take(store, top, files)


def test_a_full_disk_keeps_nothing(tmp_path: Path) -> None:
    top = lay_out(tmp_path / "folder", FILES)
    disk = FullDisk()
    store = Store.open(tmp_path / "engine", disk=disk)
    for room in (0, 50_000, LARGE // 2):
        disk.room = room
        with pytest.raises(DiskFull):
            take(store, top, listed(top))
        assert kept_nothing(store)
    store.close()


def test_a_stop_in_every_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaos_backend.engine.store.bytes.batch.Batch.abort", lambda self: None)
    top = lay_out(tmp_path / "folder", FILES)

    def act(store: Store) -> None:
        assert store.find_repo(DATA) is not None
        commit(store, take(store, top, listed(top))[0])

    assert stop_in_every_gap(tmp_path, act) > 5


NAMES = st.lists(st.text("ab-.", min_size=1, max_size=3), min_size=1, max_size=4).map(
    lambda n: "/" + "/".join(n)
)


@given(st.sets(NAMES, min_size=1, max_size=60))
def test_a_tree_built_in_order_is_the_tree_of_any_order(paths: set[str]) -> None:
    builder, editor = TreeBuilder(), TreeEditor(lambda _: EMPTY, None)
    ordered = sorted(paths)
    for part in ordered[:7], ordered[7:]:
        builder.put(part, [blake3(path.encode()).digest() for path in part], map(len, part))
    for path in paths:
        editor.put(path, "", blake3(path.encode()).digest(), len(path))
    root, rows, *_ = editor.write(lambda pieces: pieces[0])
    assert builder.finish() == root
    assert dict(builder.rows) == dict(rows)


def outcome(act: Callable[[], list[str]]) -> list[str] | str:
    try:
        return act()
    except EngineError as error:
        return str(error)


PIECES = st.sampled_from(["/", ".", "..", "a", "b c", "-", "*", "\n", "\u00e4", "n" * 300])


@given(st.lists(st.lists(PIECES, max_size=5).map("".join), max_size=4))
def test_paths_together_are_as_one_by_one(paths: list[str]) -> None:
    assert outcome(lambda: file_paths(paths)) == outcome(lambda: [file_path(path) for path in paths])
