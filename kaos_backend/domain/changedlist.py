"""What a client hands over of a folder of which it knows that the rest is in a bundle that is there. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import chain, pairwise
from operator import itemgetter

import msgspec

from kaos_backend.domain.filelist import AtTheEnd, GrowingTree, entries_of
from kaos_backend.domain.models import CopyFile, DeleteFile, FileOp
from kaos_backend.errors import InvalidBundle, StaleBase
from kaos_formats import names
from kaos_formats.handover import FILES_A_LINE, File, read_line, read_paths
from kaos_formats.paths import UNSAFE, check_paths
from kaos_formats.tree import TreeEntry, check_length, folders_of, format_tree, refuse_clashes

_BLOCK_BYTES = 1 << 20
_decode_lines = msgspec.json.Decoder(TreeEntry).decode_lines


@dataclass(frozen=True, slots=True)
class Base:
    """A bundle that is there: where it lies, and its tree text."""

    repo: str
    commit_id: str
    id: str
    tree: bytes

    def blocks(self) -> Iterator[tuple[bytes, list[TreeEntry]]]:
        """Parts of the text in whole lines, with what they say: there may be a million of them."""
        start = 0
        while start < len(self.tree):
            end = self.tree.find(b"\n", start + _BLOCK_BYTES) + 1 or len(self.tree)
            block = self.tree[start:end]
            yield block, _decode_lines(block)
            start = end


@dataclass(frozen=True, slots=True)
class ChangedList:
    """The files that are not as in the ``base``, sorted by path.

    ``replaced`` are the paths of the base that have another content now, or none. ``files`` and
    ``size_bytes`` count the whole bundle.
    """

    base: Base
    changed: Sequence[File]
    replaced: Set[str]
    files: int
    size_bytes: int

    @classmethod
    def of(cls, base: Base, lines: Sequence[bytes]) -> ChangedList:
        """``lines``: first the paths that are gone, then what has changed, see ``kaos_formats.handover``.

        Raises InvalidBundle for a list that cannot be, StaleBase where names need a map.
        """
        try:
            gone = set(read_paths(lines[0]) if lines else [])
            changed = [file for line in lines[1:] for file in read_line(line)]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidBundle(f"the list of files is broken: {error}") from error
        if any(a.path >= b.path for a, b in pairwise(changed)):
            raise InvalidBundle("the list of files is not sorted by path, each once")
        new = {file.path for file in changed}
        touched = new | gone
        replaced: set[str] = set()
        count, size = len(new), sum(file.size for file in changed)
        plain = True
        for _, entries in base.blocks():
            paths = [entry.path for entry in entries]
            plain = plain and not UNSAFE.search("/".join(paths))
            found = touched.intersection(paths)
            count += len(entries) - len(found)
            size += sum([entry.size for entry in entries])
            if found:
                size -= sum([entry.size for entry in entries if entry.path in found])
                replaced |= found
        added = [file.path for file in changed if file.path not in replaced]
        if not plain or UNSAFE.search("/".join(added)):
            raise StaleBase("a folder with names that Pachyderm cannot hold is listed as a whole")
        if unknown := gone - replaced:
            path = min(unknown)
            raise InvalidBundle(f"the base has no file {path!r} that could be gone", path=path)
        if not count:
            raise InvalidBundle("the bundle has no files", hint="an empty folder can not be deployed")
        if added:
            check_paths(added)
            clash = _Clash(new)
            for _, entries in base.blocks():
                clash.look_at(entry.path for entry in entries if entry.path not in replaced)
            clash.check()
        return cls(base, changed, replaced, count, size)

    def executable(self) -> dict[str, bool]:
        """By path, of the whole bundle."""
        kept = {entry.path: entry.mode == "755" for _, entries in self.base.blocks() for entry in entries}
        for path in self.replaced:
            del kept[path]
        return kept | {file.path: file.executable for file in self.changed}

    def stored(self) -> Iterator[list[File]]:
        """The files that are to be taken."""
        for start in range(0, len(self.changed) or 1, FILES_A_LINE):
            yield list(self.changed[start : start + FILES_A_LINE])

    def growing(self) -> GrowingTree:
        """The tree text of the whole bundle, with the hashes of what is ``stored``."""
        return AtTheEnd(lambda hashes: (hashes, self._tree(hashes)))

    def _tree(self, hashes: bytearray) -> list[bytes]:
        pieces: list[bytes] = []
        part: list[bytes] = []
        size = 0
        for run in chain(self._lines(hashes), [None]):
            part += run or ()
            if part and (run is None or len(part) >= FILES_A_LINE):
                pieces.append(b"".join(part))
                size += len(pieces[-1])
                check_length(size)
                part.clear()
        return pieces

    def _lines(self, hashes: bytearray) -> Iterator[list[bytes]]:
        """The lines of the text in their order, many at a time: nothing between two changes is looked at."""
        changes: list[tuple[str, list[bytes] | None]] = [(path, None) for path in self.replaced]
        changes += ((entry.path, [format_tree([entry])]) for entry in entries_of(self.changed, hashes))
        # What goes at a path before what comes there.
        left = deque(sorted(changes, key=itemgetter(0)))
        for block, entries in self.base.blocks():
            lines = block.splitlines(keepends=True)
            paths = [entry.path for entry in entries]
            start = 0
            while left and left[0][0] <= paths[-1]:
                path, line = left.popleft()
                place = bisect_left(paths, path, start)
                yield lines[start:place]
                start = place + (line is None)
                if line is not None:
                    yield line
            yield lines[start:]
        yield from (line for _, line in left if line is not None)

    def operations(self, bundle_id: str, taken: CopyFile) -> Iterator[FileOp]:
        """The changes that make the bundle's folder, of which one copies what was taken."""
        folder, before = names.bundle_dir(bundle_id), names.bundle_dir(self.base.id)
        yield CopyFile(f"{folder}/", self.base.repo, self.base.commit_id, f"{before}/")
        # What comes replaces what is there, file by file.
        for path in sorted(self.replaced - {file.path for file in self.changed}):
            yield DeleteFile(f"{folder}/{path}")
        yield taken


class _Clash:
    """Looks for a file that is also a folder: among new paths, and between them and each that was there."""

    def __init__(self, new: Set[str]) -> None:
        self._new = new
        self._folders = folders_of(new)
        self._folder = ""
        self._found: set[str] = set()

    def look_at(self, paths: Iterable[str]) -> None:
        for path in paths:
            if path in self._folders:
                self._found.add(path)
            folder = path.rpartition("/")[0]
            if folder != self._folder:
                self._folder = folder
                self._found |= self._new & folders_of([path])

    def check(self) -> None:
        """Raises InvalidBundle."""
        refuse_clashes(self._found | (self._folders & self._new))
