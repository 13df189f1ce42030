"""Trees: what a change rewrites, what equal content looks like, merging and grafting."""

from __future__ import annotations

import random
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from kaos_backend.engine.errors import DataLoss, NotFound
from kaos_backend.engine.store.bytes.objects import EMPTY_HASH
from kaos_backend.engine.store.model import FileSource, Subtree
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.store.trees.edit import TreeEditor
from kaos_backend.engine.store.trees.nodes import EMPTY, DirRef, FileRef, Node, decode
from kaos_backend.engine.store.trees.revise import revise
from kaos_backend.engine.store.trees.tree import find_flaw, look_up, walk

from .conftest import content, put


class Memory:
    """Trees in a dictionary."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.new = 0

    def load(self, key: bytes) -> Node:
        return decode(self.rows[key], self.rows.__getitem__)

    def write(self, editor: TreeEditor) -> bytes | None:
        root, rows, _ = editor.write(
            lambda pieces: (b"+".join(hash_ for hash_, _ in pieces), sum(n for _, n in pieces))
        )
        self.new = len(rows)
        self.rows.update(rows)
        return root


def tree(memory: Memory, files: dict[str, bytes], tag: str = "default") -> bytes | None:
    editor = TreeEditor(memory.load, None)
    for path, hash_ in files.items():
        editor.put(path, tag, hash_, len(hash_))
    return memory.write(editor)


def test_only_touched_directories_are_rewritten() -> None:
    memory = Memory()
    root = tree(memory, {f"/{a}/{b}/{c}": b"x" * 32 for a in "abc" for b in "abc" for c in "abc"})
    editor = TreeEditor(memory.load, root)
    editor.put("/a/b/new", "default", b"y" * 32, 1)
    memory.write(editor)
    assert memory.new == 3, "the directory, the one above, and the root"


def test_a_large_directory_is_kept_in_pieces() -> None:
    memory = Memory()
    root = tree(memory, {f"/f{i:05}": b"x" * 32 for i in range(20_000)})
    assert memory.new > 50
    editor = TreeEditor(memory.load, root)
    editor.put("/f10000x", "default", b"y" * 32, 1)
    changed = memory.write(editor)
    assert memory.new <= 3, "one piece of the list, and the directory"
    assert len(list(walk(memory.load, changed))) == 20_002
    assert look_up(memory.load, changed, "/f10000x")[0].hash == b"y" * 32


NAMES = st.integers(0, 900).map("n{}".format)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([3, 400]),
            st.dictionaries(st.tuples(NAMES, st.sampled_from(["", "t"])), st.booleans(), max_size=40),
            st.dictionaries(NAMES, st.booleans(), max_size=20),
        ),
        max_size=6,
    ),
    st.integers(),
)
@settings(max_examples=40, deadline=None)
def test_a_directory_changed_in_steps_is_the_one_made_at_once(
    steps: list[tuple[int, dict[tuple[str, str], bool], dict[str, bool]]], seed: int
) -> None:
    """Whatever is added and removed, around the size from which it is kept in pieces."""
    chance = random.Random(seed)
    files: dict[tuple[str, str], FileRef] = {}
    dirs: dict[str, DirRef] = {}
    node = EMPTY
    for size, some_files, some_dirs in steps:
        # Many at a time, so that pieces end, join and vanish.
        these = dict.fromkeys(((f"n{chance.randrange(900)}", "") for _ in range(size)), chance.random() < 0.6)
        new_files = {at: _file(chance, *at) if add else None for at, add in (these | some_files).items()}
        new_dirs = {name: _dir(chance, name) if add else None for name, add in some_dirs.items()}
        files = {at: ref for at, ref in (files | new_files).items() if ref is not None}
        dirs = {name: ref for name, ref in (dirs | new_dirs).items() if ref is not None}
        key, node, rows = revise(node, new_files, new_dirs)
        key_at_once, at_once, all_rows = revise(EMPTY, files, dirs)
        assert key == key_at_once
        assert (node.files, node.dirs, node.hash) == (at_once.files, at_once.dirs, at_once.hash)
        assert (node.flawed, node.tag, node.size) == (at_once.flawed, at_once.tag, at_once.size)
        assert {key for key, _ in rows} <= {key for key, _ in all_rows}


def _file(chance: random.Random, name: str, tag: str) -> FileRef:
    return FileRef(name, tag, chance.randbytes(32), chance.randrange(9))


def _dir(chance: random.Random, name: str) -> DirRef:
    return DirRef(name, chance.randbytes(32), chance.randbytes(32), chance.randrange(9), False, "")


def test_the_hash_of_a_directory_is_that_of_its_content() -> None:
    memory = Memory()
    one = tree(memory, {"/d/a": b"1" * 32, "/d/b": b"2" * 32}, tag="datum")
    two = tree(memory, {"/d/b": b"2" * 32, "/d/a": b"1" * 32})
    other = tree(memory, {"/d/a": b"1" * 32, "/d/c": b"2" * 32})
    hashes = [look_up(memory.load, root, "/d")[0].hash for root in (one, two, other)]
    assert hashes[0] == hashes[1]
    assert hashes[0] != hashes[2]
    assert one != two, "the tags are kept, though"


def test_flaws_are_found_wherever_they_are() -> None:
    memory = Memory()
    sound = tree(memory, {"/a/b": b"1" * 32})
    assert find_flaw(memory.load, sound) == ""
    collision = tree(memory, {"/x/a/b": b"1" * 32, "/x/a": b"2" * 32})
    assert find_flaw(memory.load, collision) == "file / directory path collision (/x/a)"
    editor = TreeEditor(memory.load, tree(memory, {"/x/y": b"1" * 32}, "datum1"))
    editor.overlay(tree(memory, {"/x/y": b"1" * 32}, "datum2"))
    twice = memory.write(editor)
    assert find_flaw(memory.load, twice) == "duplicate path output by different datums (/x/y)"


PATHS = st.lists(st.sampled_from(["a", "b", "a-b", "a.b", "ab"]), min_size=1, max_size=3).map(
    lambda p: "/" + "/".join(p)
)


@given(st.sets(PATHS))
@settings(max_examples=200, deadline=None)
def test_a_walk_is_sorted_by_path(paths: set[str]) -> None:
    memory = Memory()
    root = tree(memory, dict.fromkeys(paths, b"h" * 32))
    walked = [entry.path for entry in walk(memory.load, root)]
    assert walked == sorted(walked)
    directories = {"/"} if paths else set()
    for path in paths:
        while path := path.rpartition("/")[0]:
            directories.add(path + "/")
    assert set(walked) == paths | directories


def test_copying_retags_and_merging_does_not() -> None:
    memory = Memory()
    source = tree(memory, {"/m/x": b"1" * 32}, tag="datum")
    editor = TreeEditor(memory.load, None)
    editor.copy("/copied", "default", source, "/", "", append=False)
    editor.overlay(source)
    root = memory.write(editor)
    assert look_up(memory.load, root, "/copied/m/x")[0].tag == "default"
    assert look_up(memory.load, root, "/m/x")[0].tag == "datum"


def test_merge_and_build(store: Store) -> None:
    first = store.inspect_commit(put(store, {"/m1/a": b"1", "/shared/x": b"x"})).root
    second = store.inspect_commit(put(store, {"/m2/b": b"2", "/shared/x": b"x"})).root
    merged = store.merge([first, None, second])
    assert [entry.path for entry in store.walk(merged) if entry.kind == "file"] == [
        "/m1/a",
        "/m2/b",
        "/shared/x",
    ]
    assert store.merge([]) is None
    assert store.merge([first]) == first
    assert first is not None
    built = store.build_tree(
        {
            "/meta/1/meta": FileSource(b"{}", tag="d"),
            "/pfs/1/in": Subtree(first, "/m1"),
            "/pfs/1/file": Subtree(first, "/shared/x"),
            "/pfs/1/none": Subtree(first, "/nope"),
        }
    )
    assert {entry.path: entry.tag for entry in store.walk(built) if entry.kind == "file"} == {
        "/meta/1/meta": "d",
        "/pfs/1/file": "default",
        "/pfs/1/in/a": "default",
    }
    assert b"".join(store.open_file(built, "/pfs/1/in/a")) == b"1"
    less = store.build_tree({"/pfs": Subtree(built or b"", "/pfs"), "/pfs/1/in": None, "/pfs/2": None})
    assert {entry.path for entry in store.walk(less) if entry.kind == "file"} == {"/pfs/1/file"}


@given(
    st.lists(st.dictionaries(PATHS, st.binary(min_size=1)), max_size=6),
    st.sets(st.integers(0, 5)),
)
def test_what_is_taken_out_of_a_merged_tree_was_never_in_it(
    files: list[dict[str, bytes]], gone: set[int]
) -> None:
    memory = Memory()
    # The shared folder of many entries is cut into chunks.
    wide = {f"/shared/{n:04}": b"w" for n in range(400)}
    roots = [tree(memory, wide, "all")]
    roots += [tree(memory, {**one, f"/shared/{n}": b"x"}, f"datum-{n}") for n, one in enumerate(files)]

    def merged(base: bytes | None, without: list[bytes | None], more: list[bytes | None]) -> bytes | None:
        editor = TreeEditor(memory.load, base)
        for root in without:
            assert root is not None
            editor.subtract(root)
        for root in more:
            editor.overlay(root)
        return memory.write(editor)

    left = [root for n, root in enumerate(roots) if n - 1 not in gone]
    out = [root for n, root in enumerate(roots) if n - 1 in gone]
    assert merged(merged(None, [], roots), out, []) == merged(None, [], left)


def test_build_from_a_file_on_disk(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.write_bytes(b"z" * 3_000_000)
    built = store.build_tree({"/big": FileSource(source)})
    assert store.stat(built, "/big").size_bytes == 3_000_000
    assert b"".join(store.open_file(built, "/big")) == source.read_bytes()


def test_reading_what_is_not_there(store: Store) -> None:
    commit = put(store, {"/d/a": b""})
    root = store.inspect_commit(commit).root
    assert store.stat(root, "/d/a").hash == EMPTY_HASH
    with pytest.raises(NotFound):
        store.stat(root, "/d/b")
    with pytest.raises(NotFound):
        store.open_file(root, "/d")
    with pytest.raises(DataLoss, match="not in the index"):
        store.read_object(b"0" * 32)
    assert content(store, commit) == {"/d/a": b""}
