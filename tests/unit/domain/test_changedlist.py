"""A bundle told by what differs from another one is the bundle told as a whole."""

from __future__ import annotations

from collections.abc import Mapping

import hypothesis.strategies as st
import pytest
from blake3 import blake3
from hypothesis import given

from kaos_backend.domain import changedlist
from kaos_backend.domain.changedlist import Base, ChangedList
from kaos_backend.errors import InvalidBundle
from kaos_formats import handover
from kaos_formats.handover import FILES_A_LINE, File
from kaos_formats.tree import TreeEntry, format_tree

FOLDERS = st.dictionaries(st.sampled_from(["a", "b/c", "b/d", "e/f/g", "h-i", "h/i"]), st.binary(max_size=3))


def text(files: Mapping[str, bytes]) -> bytes:
    return format_tree(
        TreeEntry(path, len(data), "644", blake3(data).hexdigest()) for path, data in files.items()
    )


def told(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> ChangedList:
    changed = [path for path in sorted(after) if before.get(path) != after[path]]
    lines = [handover.paths_line(sorted(before.keys() - after.keys()))]
    lines += handover.lines(File(path, len(after[path]), 0, 0, 0) for path in changed)
    return ChangedList.of(Base("data", "c", "i", text(before)), lines)


def grown(found: ChangedList, hashes: bytes) -> tuple[bytes, bytes]:
    """The hashes in order and the tree, of hashes that come in two parts."""
    growing = found.growing()
    half = len(hashes) // 64 * 32
    first = growing.add(hashes[:half]) + growing.add(hashes[half:])
    rest, pieces = growing.finish()
    return first + rest, b"".join(pieces)


@given(FOLDERS, FOLDERS, st.sampled_from([1, 100, 1 << 20]))
def test_the_tree_is_that_of_the_whole(
    before: dict[str, bytes], after: dict[str, bytes], block_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changedlist, "_BLOCK_BYTES", block_bytes)
        if not after:
            with pytest.raises(InvalidBundle, match="no files"):
                told(before, after)
            return
        found = told(before, after)
        taken = b"".join(blake3(after[file.path]).digest() for block in found.stored() for file in block)
        assert grown(found, taken) == (taken, text(after))
    assert (found.files, found.size_bytes) == (len(after), sum(map(len, after.values())))
    assert found.replaced == {path for path in before if before[path] != after.get(path)}
    assert found.executable() == dict.fromkeys(after, False)


@pytest.mark.parametrize(("before", "new"), [("a", "a/b"), ("a/b/c", "a"), ("a/b/c", "a/b")])
def test_what_is_a_file_and_a_folder_is_refused(before: str, new: str) -> None:
    with pytest.raises(InvalidBundle, match="both as a file and as a folder"):
        told({before: b"1", "z": b""}, {before: b"1", new: b"2", "z": b""})


def test_what_was_never_there_cannot_be_gone() -> None:
    base = Base("data", "c", "i", text({"a": b""}))
    with pytest.raises(InvalidBundle, match="no file 'b'"):
        ChangedList.of(base, [handover.paths_line(["b"])])


def test_however_many_have_changed_no_message_has_all_of_them() -> None:
    """As one of Pachyderm's messages has room for some 100,000."""
    files = {f"{number:06}": b"x" for number in range(2 * FILES_A_LINE + 1)}
    found = told({}, files)
    assert [len(block) for block in found.stored()] == [FILES_A_LINE, FILES_A_LINE, 1]
    hashes = blake3(b"x").digest() * len(files)
    assert grown(found, hashes) == (hashes, text(files))
