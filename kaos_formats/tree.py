"""Bundle trees: the text that lists a bundle's files, and the id that follows from it.

One JSON line per file, sorted by path; the bundle id is the BLAKE3 of the text. There is exactly one
text for one set of files, so a text that parses but is not the canonical one is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Set
from dataclasses import dataclass
from itertools import islice
from json.encoder import encode_basestring_ascii
from operator import attrgetter

import blake3
import msgspec

from kaos_formats.errors import InvalidBundle
from kaos_formats.names import ID_LENGTH
from kaos_formats.paths import check_paths

TREE_FILE = ".kaos-tree"
"""The first member of an uploaded archive: the tree text."""

_path = attrgetter("path")
_ENTRIES_A_PIECE = 2000
MAX_TREE_BYTES = 256 << 20
"""Room for a million files whose paths have 150 bytes."""
_HASH = re.compile(r"[0-9a-f]{64}")


class TreeEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One regular file: path relative to the bundle's root, size in bytes, mode "644"|"755", BLAKE3 in
    hex.
    """

    path: str
    size: int
    mode: str
    hash: str


@dataclass(frozen=True, slots=True)
class Tree:
    """A whole bundle: entries sorted by path, the canonical text and its id."""

    entries: tuple[TreeEntry, ...]
    text: bytes
    id: str

    @property
    def files(self) -> int:
        return len(self.entries)

    @property
    def size_bytes(self) -> int:
        return sum(entry.size for entry in self.entries)

    def by_path(self) -> dict[str, TreeEntry]:
        return {entry.path: entry for entry in self.entries}


def bundle_id(text: bytes) -> str:
    """The id of the bundle whose canonical tree text is ``text``: 32 hex digits."""
    return id_of_pieces([text])


def format_tree(entries: Iterable[TreeEntry]) -> bytes:
    """The canonical text of a set of files (any order given, sorted by path here)."""
    quote = encode_basestring_ascii
    return "".join(
        f'{{"path":{quote(e.path)},"size":{e.size},"mode":"{e.mode}","hash":"{e.hash}"}}\n'
        for e in sorted(entries, key=_path)
    ).encode("ascii")


def tree_pieces(entries: Iterable[TreeEntry]) -> Iterator[bytes]:
    """The canonical text, in pieces, of entries that are sorted by path."""
    rest = iter(entries)
    while part := list(islice(rest, _ENTRIES_A_PIECE)):
        yield format_tree(part)


class GrowingId:
    """The ``bundle_id`` of a text that comes in pieces."""

    def __init__(self) -> None:
        self._hasher = blake3.blake3()

    def add(self, piece: bytes) -> None:
        self._hasher.update(piece)

    @property
    def id(self) -> str:
        return self._hasher.hexdigest()[:ID_LENGTH]


def id_of_pieces(pieces: Iterable[bytes]) -> str:
    """The ``bundle_id`` of a text in pieces."""
    growing = GrowingId()
    for piece in pieces:
        growing.add(piece)
    return growing.id


def make_tree(entries: Iterable[TreeEntry]) -> Tree:
    """The tree of ``entries``; raises InvalidBundle as ``parse_tree`` does."""
    return parse_tree(format_tree(entries))


def check_length(size: int) -> None:
    """Raise InvalidBundle if a tree text has more bytes than it may have."""
    if size > MAX_TREE_BYTES:
        raise InvalidBundle(
            f"the bundle's file list has more than {MAX_TREE_BYTES} bytes",
            hint="leave files out with .kaosignore, or pack many small files into fewer big ones",
        )


def parse_tree(text: bytes) -> Tree:
    """The tree that ``text`` describes.

    Raises InvalidBundle if it is too long, not canonical, empty, or names a file that a repo cannot hold;
    the message lists the first offending paths.
    """
    check_length(len(text))
    try:
        entries = tuple(msgspec.json.Decoder(TreeEntry).decode_lines(text))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidBundle(f"the bundle's file list is broken: {error}") from error
    if not entries:
        raise InvalidBundle("the bundle has no files", hint="an empty folder can not be deployed")
    _check_entries(entries)
    if format_tree(entries) != text:
        raise InvalidBundle("the bundle's file list is not in its canonical form")
    return Tree(entries, text, bundle_id(text))


def content_hashes(text: bytes) -> set[str]:
    """The hashes that a tree text of the backend's names: what need not be sent again."""
    return {entry.hash for entry in msgspec.json.Decoder(TreeEntry).decode_lines(text)}


def _check_entries(entries: tuple[TreeEntry, ...]) -> None:
    check_paths([entry.path for entry in entries])
    paths: set[str] = set()
    for entry in entries:
        if entry.size < 0 or entry.mode not in ("644", "755") or not _HASH.fullmatch(entry.hash):
            raise InvalidBundle(f"the bundle's file list is broken at {entry.path!r}", path=entry.path)
        if entry.path in paths:
            raise InvalidBundle(f"the bundle lists {entry.path!r} twice", path=entry.path)
        paths.add(entry.path)
    check_clashes(paths)


def check_clashes(paths: Collection[str]) -> None:
    """Raise InvalidBundle for a path that is also a folder of another one."""
    refuse_clashes(folders_of(paths).intersection(paths))


def folders_of(paths: Iterable[str]) -> set[str]:
    """All folders that these files lie in, at any depth."""
    folders: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return folders


def refuse_clashes(clashes: Set[str]) -> None:
    """Raise InvalidBundle, unless there are none of these paths, which are files and folders."""
    if clashes:
        path = min(clashes)
        raise InvalidBundle(f"{path!r} is listed both as a file and as a folder", path=path)
