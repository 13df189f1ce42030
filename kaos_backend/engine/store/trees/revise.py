"""Directories with changes: new nodes and chunks for what is other; all else is handed on."""

from __future__ import annotations

import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from operator import attrgetter, itemgetter
from typing import Any, Generic

import msgspec
from blake3 import blake3

from kaos_backend.engine.store.trees.nodes import (
    CHUNKED_FROM,
    DirRef,
    FileRef,
    Node,
    Ref,
    Run,
    encode,
    encode_chunk,
    file_key,
    find,
)

_CHUNK_MASK = 127
"""A chunk ends after a name whose CRC-32 has these bits clear: 128 entries on average."""
_FEW = 16
_HASHED_AT_ONCE = 128

FileChanges = Mapping[tuple[str, str], FileRef | None]
"""What is other in the files of a directory, by (name, tag); None: gone."""
DirChanges = Mapping[str, DirRef | None]
"""Likewise its subdirectories, by name."""


def revise(base: Node, files: FileChanges, dirs: DirChanges) -> tuple[bytes, Node, list[tuple[bytes, bytes]]]:
    """(key, node, rows to store) of a directory with changes; the rows are (key, bytes), its own last.

    It costs what changes, and little for each chunk that stays.
    """
    rows: list[tuple[bytes, bytes]] = []
    new_files, file_runs = _revise(base.files, base.file_runs, files, file_key, rows)
    new_dirs, dir_runs = _revise(base.dirs, base.dir_runs, dirs, _dir_key, rows)
    node = _node(new_files, file_runs, new_dirs, dir_runs)
    if not node.flawed and _collides(base, node, files, dirs):
        node = msgspec.structs.replace(node, flawed=True)
    return _encoded(node, rows)


def compose(files: list[FileRef], dirs: list[DirRef]) -> tuple[bytes, Node, list[tuple[bytes, bytes]]]:
    """What `revise` makes of an empty directory; the entries are sorted, and each name is there once in its
    list.
    """
    rows: list[tuple[bytes, bytes]] = []
    node = _node(*_cut_whole(files, rows), *_cut_whole(dirs, rows))
    if dirs and not {ref.name for ref in dirs}.isdisjoint([ref.name for ref in files]):
        node = msgspec.structs.replace(node, flawed=True)
    return _encoded(node, rows)


def _node(files: list[FileRef], file_runs: list[Run], dirs: list[DirRef], dir_runs: list[Run]) -> Node:
    runs = [*_summed(file_runs, files, _sum_files), *_summed(dir_runs, dirs, _sum_dirs)]
    tags: frozenset[str | None] = frozenset().union(*[run.tags for run in runs])
    return Node(
        files,
        dirs,
        _hash_of(runs),
        sum([run.size for run in runs]),
        any(run.flawed for run in runs),
        next(iter(tags)) if len(tags) == 1 else None,
        file_runs,
        dir_runs,
    )


def _encoded(node: Node, rows: list[tuple[bytes, bytes]]) -> tuple[bytes, Node, list[tuple[bytes, bytes]]]:
    data = encode(node)
    key = blake3(data).digest()
    rows.append((key, data))
    return key, node, rows


def _dir_key(ref: DirRef) -> str:
    return ref.name


def _revise(
    refs: list[Ref],
    runs: list[Run],
    changes: Mapping[Any, Ref | None],
    key_of: Callable[[Ref], Any],
    rows: list[tuple[bytes, bytes]],
) -> tuple[list[Ref], list[Run]]:
    """A list of entries with changes, and its runs; the chunks that are new are added to `rows`."""
    if not changes:
        return refs, runs
    todo = sorted(changes)
    found: list[Ref] = []
    kept: list[Run] = []
    if len(refs) <= CHUNKED_FROM:
        found = _merged(refs, changes, todo, key_of)
        return _cut_whole(found, rows)
    ends = list(accumulate([run.count for run in runs]))
    new_rows: list[tuple[bytes, bytes]] = []
    # The first run and the first change not dealt with, and entries that wait for the end of their chunk.
    at = next_ = 0
    waiting: list[Ref] = []
    edits: list[_Edit[Ref]] = []
    while at < len(runs) and (waiting or next_ < len(todo)):
        hit = at
        if not waiting:
            hit = bisect_left(ends, todo[next_], at, key=lambda end: key_of(refs[end - 1]))
            # What comes after all runs belongs to the last.
            hit = min(hit, len(runs) - 1)
            kept += runs[at:hit]
            begin = ends[hit - 1] if hit else 0
            edits.append(_Edit(begin, begin, []))
        edit = edits[-1]
        old = refs[edit.end : ends[hit]]
        final = hit == len(runs) - 1
        behind = len(todo) if final else bisect_right(todo, key_of(old[-1]), next_)
        waiting += _merged(old, changes, todo[next_:behind], key_of)
        waiting = _cut(waiting, final, edit.new, kept, new_rows)
        edit.end = ends[hit]
        next_, at = behind, hit + 1
    found = _edited(refs, edits)
    kept += runs[at:]
    if len(found) <= CHUNKED_FROM:
        return found, [Run(len(found), b"")] if found else []
    rows += new_rows
    return found, kept


def _cut_whole(refs: list[Ref], rows: list[tuple[bytes, bytes]]) -> tuple[list[Ref], list[Run]]:
    """All entries of a directory, and their runs; the chunks are added to `rows`."""
    if len(refs) <= CHUNKED_FROM:
        return refs, [Run(len(refs), b"")] if refs else []
    runs: list[Run] = []
    found: list[Ref] = []
    _cut(refs, True, found, runs, rows)
    return found, runs


@dataclass(slots=True)
class _Edit(Generic[Ref]):
    """Entries from `begin` to `end` of a list, and what is there instead."""

    begin: int
    end: int
    new: list[Ref]


def _edited(refs: list[Ref], edits: list[_Edit[Ref]]) -> list[Ref]:
    """A list with edits, which are sorted."""
    if len(edits) <= _FEW:
        # Each moves what comes after it, but a list is copied twice as fast in one piece.
        found = refs.copy()
        for edit in reversed(edits):
            found[edit.begin : edit.end] = edit.new
        return found
    found, at = [], 0
    for edit in edits:
        found += refs[at : edit.begin]
        found += edit.new
        at = edit.end
    return found + refs[at:]


def _merged(
    refs: list[Ref], changes: Mapping[Any, Ref | None], keys: list[Any], key_of: Callable[[Ref], Any]
) -> list[Ref]:
    """Entries with the changes at `keys`, sorted."""
    if not keys:
        return refs
    if not refs:
        return [ref for ref in map(changes.__getitem__, keys) if ref is not None]
    merged: dict[Any, Ref | None] = {key_of(ref): ref for ref in refs}
    merged.update((key, changes[key]) for key in keys)
    return [ref for _, ref in sorted(merged.items(), key=itemgetter(0)) if ref is not None]


def _cut(
    refs: list[Ref], final: bool, found: list[Ref], runs: list[Run], rows: list[tuple[bytes, bytes]]
) -> list[Ref]:
    """Move entries to `found`, in chunks that are added to `runs` and `rows`; what is left has no end yet.

    Nothing is left when these are the `final` entries of the directory.
    """
    start = 0
    crc = zlib.crc32
    for end, ref in enumerate(refs, 1):
        if not crc(ref.name.encode()) & _CHUNK_MASK or (final and end == len(refs)):
            data = encode_chunk(refs[start:end])
            key = blake3(data).digest()
            rows.append((key, data))
            runs.append(Run(end - start, key))
            start = end
    found += refs[:start]
    return refs[start:]


def _summed(runs: list[Run], refs: list[Ref], sum_up: Callable[[Run, list[Ref]], None]) -> list[Run]:
    """The runs, each with what follows from its entries."""
    start = 0
    for run in runs:
        if run.hashed is None:
            sum_up(run, refs[start : start + run.count])
        start += run.count
    return runs


def _hash_of(runs: Sequence[Run]) -> bytes:
    """The hash of a directory, of all that its runs add to it: some at a time, which stays in the cache."""
    digest = blake3()
    for start in range(0, len(runs), _HASHED_AT_ONCE):
        digest.update(b"".join([run.hashed or b"" for run in runs[start : start + _HASHED_AT_ONCE]]))
    return digest.digest()


def _sum_files(run: Run, refs: list[FileRef]) -> None:
    parts: list[bytes] = []
    size = 0
    previous = ""
    for file in refs:
        name = file.name
        parts += (b"f", name.encode(), b"\0", file.object)
        size += file.size
        if name == previous:
            run.flawed = True
        previous = name
    run.size = size
    run.tags = frozenset([file.tag for file in refs])
    # Last: other threads may look at this run.
    run.hashed = b"".join(parts)


def _sum_dirs(run: Run, refs: list[DirRef]) -> None:
    parts: list[bytes] = []
    for directory in refs:
        parts += (b"d", directory.name.encode(), b"\0", directory.hash)
    run.size = sum([directory.size for directory in refs])
    run.flawed = any(directory.flawed for directory in refs)
    run.tags = frozenset([directory.tag for directory in refs])
    run.hashed = b"".join(parts)


def _collides(base: Node, new: Node, files: FileChanges, dirs: DirChanges) -> bool:
    """Whether a name is there twice: under several tags, or as a file and a directory."""
    changed = {name for name, _ in files} | dirs.keys()
    if not base.flawed and len(changed) << 4 < len(new.files) + len(new.dirs):
        return any(map(partial(_is_twice, new), changed))
    start = 0
    for run in new.file_runs[:-1]:
        start += run.count
        if new.files[start - 1].name == new.files[start].name:
            return True
    return not {ref.name for ref in new.files}.isdisjoint([ref.name for ref in new.dirs])


def _is_twice(node: Node, name: str) -> bool:
    at = bisect_left(node.files, name, key=attrgetter("name"))
    count = sum(ref.name == name for ref in node.files[at : at + 2])
    return count > 1 or (count == 1 and find(node.dirs, name) is not None)
