"""The cache of inputs, whatever an earlier run of the engine left of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from kaos_backend.engine.jobs.run.inputs import InputCache, Lent
from kaos_backend.engine.jobs.spec.plan import File
from kaos_backend.engine.store.model import FileSource
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.workers.port import SmallInput
from kaos_backend.engine.workers.small import write

DAY_S = 24 * 3600.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "engine")
    yield opened
    opened.close()


class Started:
    """A cache as a start of the engine finds it, and one input of one file."""

    def __init__(
        self,
        store: Store,
        root: Path,
        now_s: Callable[[], float] = time.time,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self.cache = InputCache(store, root, now_s)
        self.cache.open()
        made = {path: FileSource(data) for path, data in (files or {"/f": b"content"}).items()}
        tree = store.build_tree(made)
        assert tree is not None
        self._tree = tree
        self._store = store

    def prepare(self) -> Path:
        lent = self.cache.lend(shared=False)
        folder = lent.prepare([self._file("/f")], lambda _: self._tree)
        lent.close()
        return folder

    def deliver(self, *paths: str, lent: Lent | None = None) -> Path | SmallInput:
        lent = lent or self.cache.lend(shared=False)
        return lent.deliver([self._file(path) for path in paths], lambda _: self._tree)

    def _file(self, path: str) -> File:
        entry = self._store.stat(self._tree, path)
        return File("a", "default", "a", "master", "c", path, entry.hash, entry.size_bytes)


def test_what_is_small_is_given_by_value_and_once_to_all_of_a_job(store: Store, tmp_path: Path) -> None:
    files = {"/d/f": b"1", "/d/e/g": b"", "/large/f": bytes(300 << 10)}
    files |= {f"/many/{number}": b"" for number in range(65)}
    started = Started(store, tmp_path / "trees", files=files)
    lent = started.cache.lend(shared=True)
    small = started.deliver("/d", lent=lent)
    assert isinstance(small, SmallInput)
    assert small.files == {"/d/f": b"1", "/d/e/g": b""}
    assert started.deliver("/d", lent=lent) is small
    write(small, tmp_path / "written")
    laid_out = lent.prepare([started._file("/d")], lambda _: started._tree)
    assert _seen(tmp_path / "written") == _seen(laid_out)
    for paths in (("/",), ("/many",), ("/large",), ("/d/f", "/large/f")):
        assert isinstance(started.deliver(*paths, lent=lent), Path)
    lent.close()


def _seen(top: Path) -> dict[str, tuple[int, bytes]]:
    """Modes and contents."""
    return {
        str(path.relative_to(top)): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in [top, *top.rglob("*")]
    }


def test_a_restart_keeps_what_is_laid_out(store: Store, tmp_path: Path) -> None:
    first = Started(store, tmp_path / "trees").prepare()
    made = (first / "f").stat().st_ino
    assert Started(store, tmp_path / "trees").prepare() == first
    assert (first / "f").stat().st_ino == made


def test_another_boot_lays_it_out_again(store: Store, tmp_path: Path) -> None:
    first = Started(store, tmp_path / "trees").prepare()
    (tmp_path / "trees" / ".boot").write_text("another boot")
    Started(store, tmp_path / "trees")
    assert not first.exists()


def test_what_nobody_used_for_a_week_goes(store: Store, tmp_path: Path) -> None:
    first = Started(store, tmp_path / "trees").prepare()
    Started(store, tmp_path / "trees", lambda: time.time() + 6 * DAY_S)
    assert first.exists()
    Started(store, tmp_path / "trees", lambda: time.time() + 8 * DAY_S)
    assert not first.exists()


def a_file_for_the_cache(trees: Path, entry: Path) -> None:
    trees.rename(trees.with_name("elsewhere"))
    trees.write_text("no folder")


def a_file_for_an_input(trees: Path, entry: Path) -> None:
    entry.rename(trees.with_name("elsewhere"))
    entry.write_text("no folder")


def a_link_for_an_input(trees: Path, entry: Path) -> None:
    entry.rename(trees.with_name("elsewhere"))
    entry.symlink_to(trees.with_name("none"))


def a_folder_for_the_mark(trees: Path, entry: Path) -> None:
    (trees / ".boot").unlink()
    (trees / ".boot" / "x").mkdir(parents=True)


def bytes_for_the_mark(trees: Path, entry: Path) -> None:
    (trees / ".boot").write_bytes(os.urandom(40))


def rubbish(trees: Path, entry: Path) -> None:
    (trees / "x").write_text("x")
    (trees / ".half.made").mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        a_file_for_the_cache,
        a_file_for_an_input,
        a_link_for_an_input,
        a_folder_for_the_mark,
        bytes_for_the_mark,
        rubbish,
    ],
)
def test_what_is_damaged_is_made_again(
    store: Store, tmp_path: Path, damage: Callable[[Path, Path], None]
) -> None:
    trees = tmp_path / "trees"
    damage(trees, Started(store, trees).prepare())
    entry = Started(store, trees).prepare()
    assert (entry / "f").read_text() == "content"
    assert {path.name for path in trees.iterdir()} - {".bytes"} == {".boot", entry.name, f"{entry.name}.seal"}


def rewrite(entry: Path) -> None:
    (entry / "f").chmod(0o644)
    (entry / "f").write_bytes(b"CONTENT")
    (entry / "f").chmod(0o444)


def rewrite_in_secret(entry: Path) -> None:
    before = (entry / "f").stat()
    rewrite(entry)
    os.utime(entry / "f", ns=(before.st_atime_ns, before.st_mtime_ns))


def forbid(entry: Path) -> None:
    (entry / "f").chmod(0o000)


def add(entry: Path) -> None:
    entry.chmod(0o755)
    (entry / "g").touch()


def swap(entry: Path) -> None:
    entry.chmod(0o755)
    (entry / "f").rename(entry / ".f")
    (entry / "f").symlink_to(".f")


def lose_the_seal(entry: Path) -> None:
    entry.with_name(f"{entry.name}.seal").unlink()


@pytest.mark.parametrize("change", [rewrite, rewrite_in_secret, forbid, add, swap, lose_the_seal])
@pytest.mark.parametrize("restart", [False, True])
def test_what_was_changed_is_laid_out_again(
    store: Store, tmp_path: Path, change: Callable[[Path], None], restart: bool
) -> None:
    started = Started(store, tmp_path / "trees")
    entry = started.prepare()
    change(entry)
    again = (Started(store, tmp_path / "trees") if restart else started).prepare()
    assert not entry.exists()
    assert [path.name for path in again.iterdir()] == ["f"]
    assert not (again / "f").is_symlink()
    assert (again / "f").read_bytes() == b"content"
    assert (again / "f").stat().st_mode & 0o777 == 0o444
