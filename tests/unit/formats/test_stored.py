from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.store.names import file_path
from kaos_formats.paths import GLOB_CHARACTERS, MAX_NAME_BYTES, path_problem
from kaos_formats.stored import MAP_FILE, escape, parse_map, read_map, restore, stored_names

ANY = st.characters(exclude_characters="/\0", exclude_categories=("Cs",))
FAVOURITES = st.sampled_from([*"% (é\n\\\t.%2~", "%28", "(", ")", "%", MAP_FILE, "数", "%~"])
NAME = (
    st.one_of(st.text(ANY, min_size=1, max_size=6), st.lists(FAVOURITES, min_size=1, max_size=4).map("".join))
    .filter(lambda name: name not in (".", ".."))
    .map(lambda name: name.encode()[:255].decode(errors="ignore"))
)
LONG = st.tuples(NAME, st.integers(1, 255)).map(
    lambda n: (n[0] * n[1]).encode()[:MAX_NAME_BYTES].decode(errors="ignore")
).filter(lambda name: name not in ("", ".", ".."))  # fmt: skip
PATHS = st.lists(
    st.lists(st.one_of(NAME, LONG), min_size=1, max_size=3).map("/".join), min_size=1, max_size=8, unique=True
).filter(
    lambda paths: (
        not {"/".join(p.split("/")[:n]) for p in paths for n in range(1, p.count("/") + 1)} & set(paths)
    )
)


def folders_of(paths: list[str]) -> set[str]:
    return {"/".join(p.split("/")[:n]) for p in paths for n in range(1, p.count("/") + 1)}


def test_escapes_are_to_the_letter() -> None:
    assert escape("my data (1).csv") == "my data %281%29.csv"
    assert escape("Größe_数据.csv") == "Gr%c3%b6%c3%9fe_%e6%95%b0%e6%8d%ae.csv"
    assert escape("a\nb%") == "a%0ab%25"


def test_a_map_is_to_the_letter() -> None:
    names = stored_names(["my data (1).csv", "é/%41\n", "plain/x%41", "back\\slash"])
    assert names is not None
    assert names.map_text("m1") == (
        b"kaos-names 1 m1\n"
        b"my data %281%29.csv\tmy data (1).csv\n"
        b"%c3%a9\t\\0303\\0251\n"
        b"%2541%0a\t\\0303\\0251/%41\\0012\n"
    )


@pytest.mark.parametrize("paths", [["a", "b/c d%41.txt"], [MAP_FILE], ["%28", "%~x"], ["a" * 255]])
def test_what_pfs_can_hold_is_not_touched(paths: list[str]) -> None:
    assert stored_names(paths) is None


@given(PATHS)
@example(["(", "%28", "x"])
@example(["é/(", "é/%28", "é/%28x/("])
@example(["(", "%28/a", MAP_FILE])
@example(["(" * 255, "é" * 127 + ".json", MAP_FILE + "/x"])
def test_every_folder_is_held_and_told(paths: list[str]) -> None:
    """Any names: PFS takes the stored ones, they are distinct, and the map gives the true ones back."""
    names = stored_names(paths)
    if names is None:
        assert all(file_path(f"/{path}") == f"/{path}" for path in paths)
        return
    stored = [names.path(path) for path in paths]
    assert len({*stored, MAP_FILE}) == len(paths) + 1
    for path, held in zip(paths, stored, strict=True):
        assert file_path(f"/{held}") == f"/{held}"
        assert max(map(len, held.split("/"))) <= MAX_NAME_BYTES
        assert held.count("/") == path.count("/")
    assert not folders_of(stored) & {*stored, MAP_FILE}
    text = names.map_text("folder")
    assert text is not None
    assert re.fullmatch(rb"[ -~\t\n]+", text)
    read = parse_map(text, "folder")
    assert read is not None
    assert [read.path(held) for held in stored] == paths


@given(st.lists(NAME, min_size=1, max_size=6, unique=True))
def test_names_that_pfs_can_hold_keep_theirs(siblings: list[str]) -> None:
    names = stored_names([*siblings, "("])
    assert names is not None
    for name in siblings:
        try:
            held = file_path(f"/{name}") == f"/{name}"
        except EngineError:
            held = False
        if held and name != MAP_FILE:
            assert names.path(name) == name


@given(PATHS)
@example(["é/(", "é/%28", "é/%28x/(", MAP_FILE])
def test_a_folder_on_disk_gets_its_true_names_back(
    tmp_path_factory: pytest.TempPathFactory, paths: list[str]
) -> None:
    names = stored_names(paths)
    if names is None or any(path_problem(path) for path in paths):
        return
    folder = tmp_path_factory.mktemp("d") / "m"
    for path in paths:
        file = folder / names.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(path.encode())
    (folder / MAP_FILE).write_bytes(names.map_text("m") or b"")
    found = read_map(folder)
    assert found is not None
    restore(folder, found)
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert {p.relative_to(folder).as_posix(): p.read_bytes().decode() for p in files} == {p: p for p in paths}


def test_long_names_keep_their_begin_and_suffix() -> None:
    names = stored_names(["metrics" + "é" * 100 + ".json"])
    assert names is not None
    stored = names.path("metrics" + "é" * 100 + ".json")
    assert stored.startswith("metrics%c3%a9")
    assert stored.endswith(".json")
    assert len(stored) <= MAX_NAME_BYTES


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"kaos-names 1 m",
        b"kaos-names 1 other\nx\ty\n",
        b"kaos-names 2 m\nx\ty\n",
        b"kaos-names 1 m\nx\n",
        b"kaos-names 1 m\nx\t../../etc/passwd\n",
        b"kaos-names 1 m\nx\t/etc/passwd\n",
        b"kaos-names 1 m\n../x\ty\n",
        b"kaos-names 1 m\nx\ta\\0000b\n",
        b"kaos-names 1 m\n..\ty\n",
    ],
)
def test_what_is_no_map_of_the_folder(text: bytes) -> None:
    assert parse_map(text, "m") is None


def test_names_that_are_no_utf8_are_told_by_their_bytes() -> None:
    found = parse_map(b"kaos-names 1 m\n%ff\t\\0377\n", "m")
    assert found is not None
    assert found.path("%ff") == "\\xff"


def test_pfs_and_the_escapes_agree_on_what_is_unsafe() -> None:
    for code in range(1, 0x180):
        name = f"a{chr(code)}b"
        if name[1] == "/":
            continue
        try:
            file_path(f"/{name}")
        except EngineError:
            assert stored_names([name]) is not None
            assert code >= 0x7F or code < 0x20 or chr(code) in GLOB_CHARACTERS
        else:
            assert stored_names([name]) is None
