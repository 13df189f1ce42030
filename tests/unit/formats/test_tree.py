from __future__ import annotations

import json

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos_formats import tree
from kaos_formats.errors import InvalidBundle
from kaos_formats.tree import TreeEntry, bundle_id, format_tree, make_tree, parse_tree

HASH = blake3.blake3(b"").hexdigest()

ELEMENTS = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=8
).filter(lambda e: e not in (".", ".."))
PATHS = st.lists(ELEMENTS, min_size=1, max_size=3).map("/".join)


def entry(path: str, size: int = 0, mode: str = "644", digest: str = HASH) -> TreeEntry:
    return TreeEntry(path, size, mode, digest)


def test_the_text_is_to_the_letter() -> None:
    text = format_tree([entry("b/x.txt", 12, "755"), entry('a"\\', 0)])
    assert text == (
        b'{"path":"a\\"\\\\","size":0,"mode":"644","hash":"' + HASH.encode() + b'"}\n'
        b'{"path":"b/x.txt","size":12,"mode":"755","hash":"' + HASH.encode() + b'"}\n'
    )
    assert parse_tree(text).id == blake3.blake3(text).hexdigest()[:32] == bundle_id(text)


@given(st.dictionaries(PATHS, st.tuples(st.integers(0, 2**50), st.sampled_from(["644", "755"])), min_size=1))
def test_what_is_formatted_parses_or_is_a_clash(files: dict[str, tuple[int, str]]) -> None:
    entries = [entry(path, size, mode) for path, (size, mode) in files.items()]
    folders = {"/".join(p.split("/")[:n]) for p in files for n in range(1, p.count("/") + 1)}
    if folders & set(files):
        with pytest.raises(InvalidBundle):
            make_tree(entries)
        return
    made = make_tree(entries)
    assert made.entries == tuple(sorted(entries, key=lambda e: e.path))
    assert parse_tree(made.text) == made
    assert made.size_bytes == sum(size for size, _ in files.values())


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../b", "a/./b", "a//b", "a/", "a\0b", "a\udcff"]
)
def test_paths_that_are_refused(path: str) -> None:
    with pytest.raises(InvalidBundle):
        make_tree([entry(path)])


@pytest.mark.parametrize(
    "path",
    [
        "my data (1).csv",
        "Größe_数据.csv",
        "a*b",
        "a\nb",
        "%41",
        "a\x7f",
        "é" * 127,
        ".kaos-tree",
        "\U0001f600",
    ],
)
def test_any_name_of_linux_can_be_listed(path: str) -> None:
    made = make_tree([entry(path), entry(f"x/{path}")])
    assert made.text.isascii()
    assert made.text.count(b"\n") == 2
    assert [e.path for e in parse_tree(made.text).entries] == sorted([path, f"x/{path}"])


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t + b" ",
        lambda t: t[:-1],
        lambda t: t.replace(b'"size":1', b'"size": 1'),
        lambda t: t.replace(b'"size":1', b'"size":-1'),
        lambda t: t.replace(b'"size":1', b'"size":1.0'),
        lambda t: t.replace(b'"mode":"644"', b'"mode":"777"'),
        lambda t: t.replace(HASH.encode(), HASH.upper().encode()),
        lambda t: t.replace(b'"size":1,', b'"size":1,"x":1,'),
        lambda t: b"\xff" + t,
        lambda t: t + t,
        lambda t: t.replace(b"\n", b"\r\n"),
        lambda t: b"".join(reversed(t.splitlines(keepends=True))),
        lambda t: b"",
        lambda t: b"\n",
        lambda t: json.dumps([1]).encode(),
        lambda t: b"[" * 100_000,
    ],
)
def test_anything_but_the_canonical_text_is_refused(change) -> None:  # type: ignore[no-untyped-def]
    text = format_tree([entry("a", 1), entry("b", 1)])
    with pytest.raises(InvalidBundle):
        parse_tree(change(text))


def test_a_file_is_no_folder() -> None:
    with pytest.raises(InvalidBundle, match="both as a file and as a folder"):
        make_tree([entry("a"), entry("a-b"), entry("a/b")])


def test_a_text_over_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MAX_TREE_BYTES", 10)
    with pytest.raises(InvalidBundle, match="more than 10 bytes"):
        make_tree([entry("a")])


def test_a_million_files_with_long_names_have_room() -> None:
    one = tree.TreeEntry("p" * 140, 10**9, "644", "0" * 64)
    assert 10**6 * len(tree.format_tree([one])) < tree.MAX_TREE_BYTES
