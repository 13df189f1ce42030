"""The list of files that a client hands over, and the tree that it becomes with their hashes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from kaos_backend.domain.models import AddFile, CopyFile, FileOp
from kaos_backend.errors import InvalidBundle
from kaos_formats.handover import FILES_A_LINE, File, read_line
from kaos_formats.names import bundle_dir
from kaos_formats.paths import UNSAFE, path_problems, refuse
from kaos_formats.stored import MAP_FILE, StoredNames
from kaos_formats.tree import TreeEntry, check_length, format_tree

HASH_BYTES = 32


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

    def in_order(self, hashes: bytes | bytearray) -> bytes | bytearray:
        """The hashes of ``stored`` (32 bytes each), in the order of the list."""
        if self.names is None:
            return hashes
        sorted_ = bytearray(len(hashes))
        for place, at in enumerate(self.order):
            start = place * HASH_BYTES
            sorted_[at * HASH_BYTES : (at + 1) * HASH_BYTES] = hashes[start : start + HASH_BYTES]
        return sorted_

    def operations(self, bundle_id: str, taken: CopyFile) -> Iterator[FileOp]:
        """The changes that make the bundle's folder, of which one copies what was taken."""
        yield taken
        map_text = None if self.names is None else self.names.map_text(bundle_id)
        if map_text is not None:
            yield AddFile(f"{bundle_dir(bundle_id)}/{MAP_FILE}", map_text)

    def tree(self, hashes: bytes | bytearray) -> list[bytes]:
        """The tree text in pieces; ``hashes`` in the order of the list. Raises InvalidBundle: too long.

        Once: a line is let go when it is done with, as those of a million files take as much as the text.
        """
        pieces: list[bytes] = []
        at = size = 0
        for number, line in enumerate(self.lines):
            self.lines[number] = b""
            block = read_line(line)
            end = at + len(block) * HASH_BYTES
            pieces.append(format_tree(entries_of(block, hashes[at:end])))
            at = end
            size += len(pieces[-1])
            check_length(size)
        return pieces


def entries_of(files: Iterable[File], hashes: bytes | bytearray) -> Iterator[TreeEntry]:
    """What a tree says of files, whose hashes are in their order."""
    text, digits = hashes.hex(), 2 * HASH_BYTES
    for place, file in enumerate(files):
        mode = "755" if file.executable else "644"
        yield TreeEntry(file.path, file.size, mode, text[digits * place : digits * (place + 1)])
