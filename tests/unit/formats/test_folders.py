"""Removing what others left in any shape, and getting a folder whatever stands there."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kaos_formats.folders import clean_up, empty_folder, folder, remove_tree
from tests.support.stubborn import Stubborn, stubborn
from tests.support.waiting import eventually


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaos_formats.folders.SWEEP_AFTER_S", 0.0)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Stubborn]:
    with stubborn(tmp_path) as made:
        yield made


def dig(top: Path, levels: int) -> None:
    """Folders in folders, deeper than any path is long."""
    top.mkdir()
    at = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_a_tree_of_any_depth_goes(tmp_path: Path) -> None:
    dig(tmp_path / "deep", sys.getrecursionlimit() + 1100)
    assert remove_tree(tmp_path / "deep") == ""
    assert names(tmp_path) == []


def test_wide_trees_of_any_modes_go(tmp_path: Path) -> None:
    for name in ("a/b/c", "a/d", "e"):
        (tmp_path / "t" / name).mkdir(parents=True)
        (tmp_path / "t" / name / "f").write_text("x")
        (tmp_path / "t" / name).chmod(0o500)
    (tmp_path / "t" / "a" / "b").chmod(0)
    assert remove_tree(tmp_path / "t") == ""
    assert names(tmp_path) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "f").write_text("x")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "in").symlink_to(tmp_path / "kept")
    (tmp_path / "at").symlink_to(tmp_path / "kept")
    assert (remove_tree(tmp_path / "t"), remove_tree(tmp_path / "at")) == ("", "")
    assert names(tmp_path) == ["kept"]
    assert names(tmp_path / "kept") == ["f"]


def test_a_missing_one_is_fine(tmp_path: Path) -> None:
    assert remove_tree(tmp_path / "none") == ""


def test_what_cannot_go_is_out_of_the_way_and_named(
    tmp_path: Path, held: Stubborn, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / "t" / name).mkdir(parents=True)
        (tmp_path / "t" / name / "f").write_text("x")
    held.immutable(tmp_path / "t" / "b" / "f")
    with caplog.at_level(logging.WARNING):
        clean_up(tmp_path / "t")
    assert "Operation not permitted (f)" in caplog.text
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".gone-t-")
    assert [path.name for path in left.rglob("*") if path.is_file()] == ["f"], "the rest is gone"


@pytest.mark.parametrize("bind", [False, True])
def test_what_is_mounted_below_is_left_alone(tmp_path: Path, held: Stubborn, bind: bool) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "t" / "a" / "m").mkdir(parents=True)
    held.mount(tmp_path / "t" / "a" / "m", tmp_path / "other" if bind else None)
    (tmp_path / "t" / "a" / "m" / "mine").write_text("x")
    assert "busy" in remove_tree(tmp_path / "t")
    (kept,) = tmp_path.rglob(".gone-*/**/mine")
    assert kept.read_text() == "x"


def a_file(path: Path) -> None:
    path.write_text("no folder")


def a_dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "none")


def nothing(path: Path) -> None:
    """Leave it missing."""


@pytest.mark.parametrize("make", [a_file, a_dangling_link, nothing])
@pytest.mark.parametrize("get", [folder, empty_folder])
def test_a_folder_takes_the_place_of_what_is_none(
    tmp_path: Path, make: Callable[[Path], None], get: Callable[[Path], Path]
) -> None:
    make(tmp_path / "x")
    assert get(tmp_path / "x") == tmp_path / "x"
    assert (tmp_path / "x").is_dir()
    eventually(lambda: names(tmp_path) == ["x"], "what stood there to go")


def test_a_folder_keeps_what_it_has_unless_it_is_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir(mode=0o500)
    (tmp_path / "x" / "f").write_text("x", "utf-8") if os.getuid() == 0 else None
    before = names(tmp_path / "x")
    assert names(folder(tmp_path / "x")) == before
    assert names(empty_folder(tmp_path / "x")) == []


def test_a_linked_folder_serves(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "f").write_text("x")
    (tmp_path / "x").symlink_to(tmp_path / "elsewhere")
    assert folder(tmp_path / "x") == tmp_path / "x"
    assert (tmp_path / "x" / "f").exists()


def test_a_folder_that_cannot_be_emptied_is_made_again(tmp_path: Path, held: Stubborn) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "f").write_text("x")
    held.immutable(tmp_path / "x" / "f")
    for _ in range(2):
        assert empty_folder(tmp_path / "x") == tmp_path / "x"
        assert names(tmp_path / "x") == []
    eventually(lambda: len(names(tmp_path)) == 2, "what can go to go")
    held.release()
    empty_folder(tmp_path / "x")
    eventually(lambda: names(tmp_path) == ["x"], "what could not go at first to go at a later start")


@pytest.mark.parametrize("get", [folder, empty_folder])
def test_a_folder_that_cannot_even_be_renamed_has_another_beside_it(
    tmp_path: Path, held: Stubborn, get: Callable[[Path], Path]
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "f").write_text("x")
    held.immutable(tmp_path / "x")
    assert get(tmp_path / "x") == get(tmp_path / "x") == tmp_path / "x.1"
    held.release()
    assert get(tmp_path / "x") == tmp_path / "x"
    eventually(lambda: names(tmp_path) == ["x"], "the other to go once it is not needed")


def test_a_mounted_folder_serves_once_it_is_empty(tmp_path: Path, held: Stubborn) -> None:
    (tmp_path / "x").mkdir()
    held.mount(tmp_path / "x")
    (tmp_path / "x" / "f").write_text("x")
    assert empty_folder(tmp_path / "x") == tmp_path / "x"
    assert names(tmp_path / "x") == []
