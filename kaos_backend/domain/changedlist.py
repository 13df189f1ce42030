"""What a client hands over of a folder of which it knows that the rest is in a bundle that is there. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from kaos_backend.domain.filelist import entries_of
from kaos_backend.domain.models import CopyFile, DeleteFile, FileOp
from kaos_backend.errors import InvalidBundle, StaleBase
from kaos_formats import names
from kaos_formats.handover import File, read_line, read_paths
from kaos_formats.paths import UNSAFE, check_paths
from kaos_formats.tree import TreeEntry, check_clashes, check_length, format_tree


@dataclass(frozen=True, slots=True)
class Base:
    """A bundle that is there: where it lies, and its tree text."""

    repo: str
    commit_id: str
    id: str
    tree: bytes


@dataclass(frozen=True, slots=True)
class ChangedList:
    """The files that are not as in the ``base``, sorted by path; of all others, the lines of its tree.

    ``replaced`` are the paths of the base that have another content now, or none; ``executable`` has all
    paths of the bundle.
    """

    base: Base
    changed: Sequence[File]
    replaced: Sequence[str]
    kept: dict[str, bytes]
    executable: Mapping[str, bool]
    size_bytes: int

    @classmethod
    def of(cls, base: Base, lines: Sequence[bytes]) -> ChangedList:
        """``lines``: first the paths that are gone, then what has changed, see ``kaos_formats.handover``.

        Raises InvalidBundle for a list that cannot be, StaleBase where names need a map.
        """
        try:
            removed = read_paths(lines[0]) if lines else []
            changed = [file for line in lines[1:] for file in read_line(line)]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidBundle(f"the list of files is broken: {error}") from error
        if any(a.path >= b.path for a, b in pairwise(changed)):
            raise InvalidBundle("the list of files is not sorted by path, each once")
        entries = {entry.path: entry for entry in msgspec.json.Decoder(TreeEntry).decode_lines(base.tree)}
        added = [file.path for file in changed if file.path not in entries]
        if UNSAFE.search("/".join((*entries, *added))):
            raise StaleBase("a folder with names that Pachyderm cannot hold is listed as a whole")
        kept = dict(zip(entries, base.tree.splitlines(keepends=True), strict=True))
        executable = {path: entry.mode == "755" for path, entry in entries.items()}
        for path in removed:
            if executable.pop(path, None) is None:
                raise InvalidBundle(f"the base has no file {path!r} that could be gone", path=path)
        executable |= {file.path: file.executable for file in changed}
        if not executable:
            raise InvalidBundle("the bundle has no files", hint="an empty folder can not be deployed")
        if added:
            check_paths(added)
            check_clashes(executable)
        gone = (*removed, *(file.path for file in changed))
        replaced = [path for path in gone if kept.pop(path, None) is not None]
        size = sum(entry.size for path, entry in entries.items() if path in kept)
        size += sum(file.size for file in changed)
        return cls(base, changed, replaced, kept, executable, size)

    @property
    def files(self) -> int:
        return len(self.executable)

    def stored(self) -> Iterator[list[File]]:
        """The files that are to be taken."""
        yield list(self.changed)

    def tree(self, hashes: bytes | bytearray) -> list[bytes]:
        """The tree text of the whole bundle, in pieces; ``hashes`` are those of what was ``stored``. Raises
        InvalidBundle if it is too long.
        """
        new = {entry.path: format_tree([entry]) for entry in entries_of(self.changed, hashes)}
        lines = self.kept | new
        text = b"".join(lines[path] for path in sorted(lines))
        check_length(len(text))
        return [text]

    def in_order(self, hashes: bytes | bytearray) -> bytes | bytearray:
        """As of a `FileList`: nothing has another name."""
        return hashes

    def operations(self, bundle_id: str, taken: CopyFile) -> Iterator[FileOp]:
        """The changes that make the bundle's folder, of which one copies what was taken."""
        folder, before = names.bundle_dir(bundle_id), names.bundle_dir(self.base.id)
        yield CopyFile(f"{folder}/", self.base.repo, self.base.commit_id, f"{before}/")
        for path in self.replaced:
            yield DeleteFile(f"{folder}/{path}")
        yield taken
