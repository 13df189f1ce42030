"""The stat index: what a file's content hashed to when it was last read; unchanged files are not read again.

One file per bundle folder. An entry is believed only while size, modification time, change time and inode are
the same, and it is written only if the file was older than the walk that hashed it: one that changed within
the clock's last tick could change again without a trace (git calls this "racily clean").
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import blake3
import msgspec

from kaos_cli.walk import Found
from kaos_formats.files import write_atomically

VERSION = 1
TICK_NS = 20_000_000
"""Longer than the tick of any kernel clock (1-10 ms) that stamps files."""
COARSE_TICK_NS = 2_000_000_000
"""For file systems that keep whole seconds only."""

Entry = tuple[int, int, int, int, bytes]
"""size, mtime_ns, ctime_ns, inode, BLAKE3."""


class _Content(msgspec.Struct, array_like=True):
    version: int
    rules: str
    files: dict[str, Entry]


@dataclass(frozen=True, slots=True)
class Index:
    """``rules``: the ignore rules under which the paths of ``files`` were let in."""

    rules: str
    files: dict[str, Entry]

    def hash_of(self, file: Found) -> bytes | None:
        """The hash of a file that is as it was; None if it has to be read."""
        entry = self.files.get(file[0])
        if entry is not None and entry[:4] == file[1:5]:
            return entry[4]
        return None


EMPTY = Index("", {})


def path_of(cache: Path, root: Path) -> Path:
    name = blake3.blake3(os.fsencode(os.path.realpath(root))).hexdigest()[:32]
    return cache / "index" / f"{name}.mpk"


def load(path: Path) -> Index:
    """The index at ``path``; an empty one when it is missing, damaged or of another version."""
    try:
        raw = path.read_bytes()
    except OSError:
        return EMPTY
    if blake3.blake3(raw[32:]).digest() != raw[:32]:
        return EMPTY
    try:
        content = msgspec.msgpack.decode(raw[32:], type=_Content)
    except msgspec.DecodeError:
        return EMPTY
    return Index(content.rules, content.files) if content.version == VERSION else EMPTY


def save(path: Path, index: Index) -> None:
    """Write the index. A cache that cannot be written is no reason to fail."""
    body = msgspec.msgpack.encode(_Content(VERSION, index.rules, index.files))
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, blake3.blake3(body).digest() + body, durable=False)


def is_settled(file: Found, walk_started_ns: int) -> bool:
    """Whether a later change of ``file`` is sure to show in its times. Times in ns since the epoch."""
    latest = max(file.mtime_ns, file.ctime_ns)
    coarse = file.mtime_ns % 1_000_000_000 == 0 and file.ctime_ns % 1_000_000_000 == 0
    return latest + (COARSE_TICK_NS if coarse else TICK_NS) < walk_started_ns
