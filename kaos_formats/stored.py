"""How PFS holds names that it cannot hold: escaped in PFS, with a map of the true names beside them.

PFS holds printable ASCII without glob characters. A folder (a bundle, a model) may have files of other names.
These are stored under escaped ones, computed forward from the true ones and never decoded: the folder then
holds a map, ``.kaos-names``, and whoever lays the folder out or gives it to people reads the true ones there.
A folder without such names has no map, and nothing in it is touched, a raw ``%`` neither.

The map is made so that a POSIX shell can read and write it (``kaos_pipelines/train.sh`` does both): a first
line ``kaos-names 1 <folder>`` and, for each file or folder that has another name, parents first, a line: its
stored name, a tab, and its true path with ``\\0ooo`` for a backslash and all but printable ASCII.
A file that only happens to have the map's name does not begin with the name of the folder that it is in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from blake3 import blake3

from kaos_formats.paths import MAX_NAME_BYTES, UNSAFE

MAP_FILE = ".kaos-names"
MAX_MAP_BYTES = 256 * 1024 * 1024

_HEADER = b"kaos-names 1 "
_HASH_DIGITS = 32
_MAX_SUFFIX_BYTES = 16
_PERCENT = 0x25
_BACKSLASH = 0x5C
_OCTAL = re.compile(rb"\\0([0-3][0-7]{2})")


class StoredNames:
    """The stored names of one folder's files. ``stored_names`` makes it."""

    def __init__(self, paths: Iterable[str]) -> None:
        paths = list(paths)
        self._chosen: dict[str, str] = {}  # true path of a file or folder → its stored path
        self._taken: set[str] = {MAP_FILE}
        # What PFS can hold keeps its name: so a true name that has a line in the map is never another's
        # stored one, and renaming them in turn cannot cross. Names without % are in no escaped one's way.
        self._plain: set[str] = {
            "/".join(names[: depth + 1])
            for path in paths
            if "%" in path
            for names in (path.split("/"),)
            for depth, name in enumerate(names)
            if "%" in name and not UNSAFE.search(name)
        }
        for path in paths:
            self.path(path)

    def path(self, path: str) -> str:
        """The stored path for the true one of a file (both relative to the folder)."""
        if not UNSAFE.search(path) and path.partition("/")[0] != MAP_FILE:
            return path
        true = stored = ""
        for name in path.split("/"):
            above = f"{true}/" if true else ""
            true = above + name
            known = self._chosen.get(true)
            if known is None:
                known = self._choose(stored + "/" if stored else "", above, name)
                self._chosen[true] = known
                self._taken.add(known)
            stored = known
        return stored

    def map_text(self, folder: str) -> bytes | None:
        """The map of the folder called ``folder``; None if all names are stored as they are."""
        lines = [
            stored.rpartition("/")[2].encode("ascii") + b"\t" + _encode(true) + b"\n"
            for true, stored in sorted(self._chosen.items())
            if true.rpartition("/")[2] != stored.rpartition("/")[2]
        ]
        return _HEADER + folder.encode("ascii") + b"\n" + b"".join(lines) if lines else None

    def _choose(self, prefix: str, above: str, name: str) -> str:
        """The stored path of ``name``; it lies in the folder ``above``, which is stored as ``prefix``."""
        if not UNSAFE.search(name) and prefix + name != MAP_FILE:
            return prefix + name
        candidate = escape(name)
        salt = 0
        while (
            len(candidate) > MAX_NAME_BYTES
            or prefix + candidate in self._taken
            or above + candidate in self._plain
        ):
            candidate = _hashed(name, salt)
            salt += 1
        return prefix + candidate


def stored_names(paths: Iterable[str]) -> StoredNames | None:
    """How PFS holds a folder of these files (relative paths, UTF-8); None if it holds all as they are.

    Names that it can hold keep theirs, whatever else there is, but for a file that is called like the map.
    """
    paths = list(paths)
    return StoredNames(paths) if UNSAFE.search("/".join(paths)) else None


def escape(name: str) -> str:
    """A name with ``%XX`` for every byte that PFS cannot hold, and for ``%``. May be too long."""
    return "".join(
        f"%{byte:02x}" if byte == _PERCENT or UNSAFE.match(chr(byte)) else chr(byte)
        for byte in name.encode("utf-8")
    )


def _hashed(name: str, salt: int) -> str:
    """A short name for one that is too long or taken; what programs look at, begin and suffix, stays."""
    head, _, suffix = name.rpartition(".")
    ending = escape(f".{suffix}") if head else ""
    if len(ending) > _MAX_SUFFIX_BYTES:
        head, ending = name, ""
    digest = blake3(f"{salt}/{name}".encode()).hexdigest()[:_HASH_DIGITS]
    start = escape(head or name)[: MAX_NAME_BYTES - len("%~") - _HASH_DIGITS - len(ending)]
    # No half of an escape; and "%~" comes from no escape, so that no other name looks like this one.
    return re.sub(r"%.?\Z", "", start) + "%~" + digest + ending


class TrueNames:
    """What a map says: the true paths of one folder's stored ones."""

    def __init__(self, entries: Iterable[tuple[str, str]]) -> None:
        """``entries``: (stored name, true path), parents first."""
        self.entries = tuple(entries)
        self._true = {(true.rpartition("/")[0], stored): true for stored, true in self.entries}

    def path(self, path: str) -> str:
        """The true path for a stored one (both relative to the folder)."""
        true = ""
        for name in path.split("/"):
            true = self._true.get((true, name)) or (f"{true}/{name}" if true else name)
        return true


def parse_map(text: bytes, folder: str) -> TrueNames | None:
    """The map in ``text`` of the folder called ``folder``; None if it is no map of this folder.

    A true name that is no UTF-8 (only a shell can have written it) is given with ``\\xXX``.
    """
    head, _, rest = text.partition(b"\n")
    if not rest or head != _HEADER + folder.encode("utf-8", "surrogateescape"):
        return None
    entries: list[tuple[str, str]] = []
    for line in rest.removesuffix(b"\n").split(b"\n"):
        stored, tab, encoded = line.partition(b"\t")
        name, true = stored.decode("ascii", "replace"), _decode(encoded).decode("utf-8", "backslashreplace")
        if not tab or "/" in name or not _is_inside(name) or not _is_inside(true):
            return None
        entries.append((name, true))
    return TrueNames(entries)


def read_map(folder: Path) -> TrueNames | None:
    """The map that lies in a folder on disk; None without one."""
    try:
        with (folder / MAP_FILE).open("rb") as file:
            return parse_map(file.read(MAX_MAP_BYTES), folder.name)
    except (FileNotFoundError, NotADirectoryError):
        return None


def restore(folder: Path, names: TrueNames) -> None:
    """Give the files of a folder on disk, laid out under stored names, their true ones; drop the map."""
    (folder / MAP_FILE).unlink()
    for stored, true in names.entries:
        (folder / true).with_name(stored).rename(folder / true)


def _encode(path: str) -> bytes:
    return b"".join(
        b"\\0%03o" % byte if not 0x20 <= byte < 0x7F or byte == _BACKSLASH else bytes((byte,))
        for byte in path.encode("utf-8")
    )


def _decode(text: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes((int(match[1], 8),)), text)


def _is_inside(path: str) -> bool:
    """Whether a relative path stays where it is; a map of somebody else's making must lead nowhere."""
    return "\0" not in path and not {"", os.curdir, os.pardir} & set(path.split("/"))
