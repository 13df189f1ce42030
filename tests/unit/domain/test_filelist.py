"""The tree of a list that is handed over is the same whenever its hashes come."""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis.strategies as st
from blake3 import blake3
from hypothesis import given

from kaos_backend.domain.filelist import HASH_BYTES, FileList
from kaos_formats import handover
from kaos_formats.handover import File
from kaos_formats.tree import TreeEntry, format_tree

PATHS = st.lists(st.sampled_from(["a", "b/c", "b/d", "e f", "g[1]", "x?"]), min_size=1, unique=True).map(
    sorted
)


@given(PATHS, st.lists(st.integers(0, 7), max_size=4), st.integers(1, 3))
def test_hashes_in_any_number_of_parts(paths: Sequence[str], cuts: Sequence[int], files_a_line: int) -> None:
    digests = {path: blake3(path.encode()).digest() for path in paths}
    lines = [
        line
        for at in range(0, len(paths), files_a_line)
        for line in handover.lines(File(path, 1, 0, 0, 0) for path in paths[at : at + files_a_line])
    ]
    listed = FileList.of(lines)
    # What has another name in PFS comes in the order of those.
    stored = b"".join(digests[file.source or file.path] for block in listed.stored() for file in block)
    growing = listed.growing()
    told, start = b"", 0
    for end in [*sorted(cut * HASH_BYTES for cut in cuts), len(stored)]:
        told += growing.add(stored[start:end])
        start = max(start, min(end, len(stored)))
    rest, pieces = growing.finish()
    assert told + rest == b"".join(digests[path] for path in paths)
    entries = [TreeEntry(path, 1, "644", digests[path].hex()) for path in paths]
    assert b"".join(pieces) == format_tree(entries)
