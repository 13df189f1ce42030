"""Bundle trees: the text that lists a bundle's files, and the id that follows from it (format D).

One JSON line per file, sorted by path; the bundle id is the BLAKE3 of the text. There is exactly one
text for one set of files, so a text that parses but is not the canonical one is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

import blake3
import msgspec

from kaos_backend.errors import InvalidBundle

MAX_TREE_BYTES = 128 * 1024 * 1024
MAX_PATH_BYTES = 1024
MAX_ELEMENT_BYTES = 255
MAX_SHOWN_OFFENDERS = 5

FORBIDDEN = "*?[]{}!()@+^"
_PATH = re.compile(r"[ -~]+")
_FORBIDDEN = re.compile("[" + re.escape(FORBIDDEN) + "]")
_HASH = re.compile(r"[0-9a-f]{64}")
_PLAIN = re.compile(r'[^"\\]*')


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One regular file: path relative to the bundle's root, size in bytes, mode "644"|"755", BLAKE3 in
    hex.
    """

    path: str
    size: int
    mode: str
    hash: str


class _Line(msgspec.Struct, forbid_unknown_fields=True):
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
    return blake3.blake3(text).hexdigest()[:32]


def path_problem(path: str) -> str | None:
    """Why Pachyderm cannot hold (or a bundle must not have) a file at ``path``; None if it can."""
    if not path:
        return "the path is empty"
    if not _PATH.fullmatch(path):
        return "only printable ASCII characters are allowed"
    if found := _FORBIDDEN.search(path):
        return f"the character {found[0]!r} is not allowed"
    if len(path) > MAX_PATH_BYTES:
        return f"longer than {MAX_PATH_BYTES} characters"
    for element in path.split("/"):
        if element in (".", ".."):
            return "'.' and '..' are not allowed"
        if not element:
            return "absolute paths, double and trailing slashes are not allowed"
        if len(element) > MAX_ELEMENT_BYTES:
            return f"a name longer than {MAX_ELEMENT_BYTES} characters"
    return None


def format_tree(entries: Iterable[TreeEntry]) -> bytes:
    """The canonical text of a set of files (any order given, sorted by path here)."""
    lines = [
        f'{{"path":{_quoted(e.path)},"size":{e.size},"mode":"{e.mode}","hash":"{e.hash}"}}\n'
        for e in sorted(entries, key=lambda e: e.path)
    ]
    return "".join(lines).encode("ascii")


def make_tree(entries: Iterable[TreeEntry]) -> Tree:
    """The tree of ``entries``; raises InvalidBundle as ``parse_tree`` does."""
    return parse_tree(format_tree(entries))


def parse_tree(text: bytes) -> Tree:
    """The tree that ``text`` describes.

    Raises InvalidBundle if it is too long, not canonical, empty, or names a file that a repo cannot hold;
    the message lists the first offending paths.
    """
    if len(text) > MAX_TREE_BYTES:
        raise InvalidBundle(
            f"the bundle's file list has more than {MAX_TREE_BYTES} bytes",
            hint="leave files out with .kaosignore, or pack many small files into fewer big ones",
        )
    try:
        lines = msgspec.json.Decoder(_Line).decode_lines(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidBundle(f"the bundle's file list is broken: {error}") from error
    entries = tuple(TreeEntry(e.path, e.size, e.mode, e.hash) for e in lines)
    if not entries:
        raise InvalidBundle("the bundle has no files", hint="an empty folder can not be deployed")
    _check_entries(entries)
    if format_tree(entries) != text:
        raise InvalidBundle("the bundle's file list is not in its canonical form")
    return Tree(entries, text, bundle_id(text))


def _quoted(path: str) -> str:
    return (
        f'"{path}"' if _PLAIN.fullmatch(path) and path.isascii() and path.isprintable() else json.dumps(path)
    )


def _check_entries(entries: tuple[TreeEntry, ...]) -> None:
    problems = [(e.path, why) for e in entries if (why := path_problem(e.path)) is not None]
    if problems:
        shown = "; ".join(f"{path!r}: {why}" for path, why in problems[:MAX_SHOWN_OFFENDERS])
        more = len(problems) - MAX_SHOWN_OFFENDERS
        raise InvalidBundle(
            f"{len(problems)} file name(s) that Pachyderm cannot hold: {shown}"
            + (f"; and {more} more" if more > 0 else ""),
            hint="rename these files or leave them out with .kaosignore",
            paths=[path for path, _ in problems[:MAX_SHOWN_OFFENDERS]],
        )
    paths: set[str] = set()
    folders: set[str] = set()
    for entry in entries:
        if entry.size < 0 or entry.mode not in ("644", "755") or not _HASH.fullmatch(entry.hash):
            raise InvalidBundle(f"the bundle's file list is broken at {entry.path!r}", path=entry.path)
        if entry.path in paths:
            raise InvalidBundle(f"the bundle lists {entry.path!r} twice", path=entry.path)
        paths.add(entry.path)
        folder = entry.path.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    if clash := paths & folders:
        path = min(clash)
        raise InvalidBundle(f"{path!r} is listed both as a file and as a folder", path=path)
