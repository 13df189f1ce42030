"""The list of files that a client hands over, and the tree that it becomes with their hashes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import msgspec

from kaos_backend.domain.models import AddFile, CopyFile, FileOp
from kaos_backend.errors import InvalidBundle
from kaos_formats.handover import FILES_A_LINE, File, read_line
from kaos_formats.names import bundle_dir
from kaos_formats.paths import UNSAFE, path_problems, refuse
from kaos_formats.stored import MAP_FILE, StoredNames
from kaos_formats.tree import TreeEntry, check_length, format_tree

HASH_BYTES = 32
Bytes = bytes | bytearray


@dataclass(frozen=True, slots=True)
class FileList:
    """Files sorted by path, kept as the lines in which they came.

    Some may have names that PFS cannot hold. Then ``names`` has their stored ones, ``renamed`` all of the
    files as they are stored, sorted by that, and ``order`` their places in the list.
    """

    lines: list[bytes]
    files: int
    size_bytes: int
    names: StoredNames | None = None
    renamed: Sequence[File] = ()
    order: Sequence[int] = ()

    @classmethod
    def of(cls, lines: list[bytes]) -> FileList:
        """Raises InvalidBundle for a list of files that no bundle can have."""
        problems: list[tuple[str, str]] = []
        count = size = 0
        last = ""
        in_order = plain = True
        try:
            # There may be a million: no more than a line of them is looked at at a time.
            for block in map(read_line, lines):
                paths = [file.path for file in block]
                problems += path_problems(paths)
                in_order = in_order and all(a < b for a, b in pairwise((last, *paths)))
                plain = plain and not UNSAFE.search("/".join(paths))
                last = paths[-1] if paths else last
                count += len(paths)
                size += sum(file.size for file in block)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidBundle(f"the list of files is broken: {error}") from error
        if not count:
            raise InvalidBundle("the bundle has no files", hint="an empty folder can not be deployed")
        refuse(problems)
        if not in_order:
            raise InvalidBundle("the list of files is not sorted by path, each once")
        if plain:
            return cls(lines, count, size)
        files = [file for line in lines for file in read_line(line)]
        names = StoredNames([file.path for file in files])
        for file in files:
            file.source = file.source or file.path
            file.path = names.path(file.path)
        order = sorted(range(len(files)), key=lambda at: files[at].path)
        return cls(lines, count, size, names, [files[at] for at in order], order)

    def blocks(self) -> Iterator[list[File]]:
        """The files under their true names."""
        return map(read_line, self.lines)

    def stored(self) -> Iterator[list[File]]:
        """The files under the names that PFS holds, sorted by these."""
        if self.names is None:
            yield from self.blocks()
        for start in range(0, len(self.renamed), FILES_A_LINE):
            yield list(self.renamed[start : start + FILES_A_LINE])

    def operations(self, bundle_id: str, taken: CopyFile) -> Iterator[FileOp]:
        """The changes that make the bundle's folder, of which one copies what was taken."""
        yield taken
        map_text = None if self.names is None else self.names.map_text(bundle_id)
        if map_text is not None:
            yield AddFile(f"{bundle_dir(bundle_id)}/{MAP_FILE}", map_text)

    def growing(self) -> GrowingTree:
        """The tree text, as hashes of what is ``stored`` come; of one only, as it lets the lines go."""
        return _LineByLine(self) if self.names is None else AtTheEnd(self._tree)

    def _tree(self, hashes: bytearray) -> tuple[Bytes, list[bytes]]:
        tree = _LineByLine(self)
        return tree.add(self._in_order(hashes)), tree.finish()[1]

    def _in_order(self, hashes: bytearray) -> bytearray:
        """The hashes of ``stored`` (32 bytes each), in the order of the list."""
        sorted_ = bytearray(len(hashes))
        for place, at in enumerate(self.order):
            start = place * HASH_BYTES
            sorted_[at * HASH_BYTES : (at + 1) * HASH_BYTES] = hashes[start : start + HASH_BYTES]
        return sorted_


class GrowingTree(Protocol):
    """A tree text that is made while hashes come, so that little is left to do after the last one."""

    def add(self, hashes: Bytes) -> Bytes:
        """Hashes (32 bytes each) of the next files of what is ``stored``; as many of the next of the list as
        are known by now.
        """
        ...

    def finish(self) -> tuple[Bytes, list[bytes]]:
        """The rest of the hashes, and the text in pieces. Raises InvalidBundle: too long."""
        ...


class AtTheEnd:
    """A tree text for which all hashes must be there: ``make`` makes the hashes in order and the text."""

    def __init__(self, make: Callable[[bytearray], tuple[Bytes, list[bytes]]]) -> None:
        self._make = make
        self._hashes = bytearray()

    def add(self, hashes: Bytes) -> Bytes:
        self._hashes += hashes
        return b""

    def finish(self) -> tuple[Bytes, list[bytes]]:
        return self._make(self._hashes)


class _LineByLine:
    """The tree text of a list, a line of it as soon as all hashes of that are there.

    A line is let go when it is done with, as those of a million files take as much as the text.
    """

    def __init__(self, listed: FileList) -> None:
        self._lines = listed.lines
        self._done = 0
        self._block: list[File] | None = None
        self._hashes = bytearray()
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, hashes: Bytes) -> Bytes:
        self._hashes += hashes
        while self._done < len(self._lines):
            if self._block is None:
                self._block = read_line(self._lines[self._done])
            size = len(self._block) * HASH_BYTES
            if len(self._hashes) < size:
                break
            piece = format_tree(entries_of(self._block, self._hashes[:size]))
            del self._hashes[:size]
            self._lines[self._done] = b""
            self._done += 1
            self._block = None
            self._pieces.append(piece)
            self._size += len(piece)
            check_length(self._size)
        return hashes

    def finish(self) -> tuple[Bytes, list[bytes]]:
        return b"", self._pieces


def entries_of(files: Iterable[File], hashes: Bytes) -> Iterator[TreeEntry]:
    """What a tree says of files, whose hashes are in their order."""
    text, digits = hashes.hex(), 2 * HASH_BYTES
    for place, file in enumerate(files):
        mode = "755" if file.executable else "644"
        yield TreeEntry(file.path, file.size, mode, text[digits * place : digits * (place + 1)])
