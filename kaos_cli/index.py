"""The stat index: what a file's content hashed to when it was last read; unchanged files are not read again.

One file per bundle folder. An entry is believed only while size, modification time, change time, inode and
mode are the same, and it is written only if the file was older than the walk that hashed it: one that changed
within the clock's last tick could change again without a trace (git calls this "racily clean"). Where all of
a folder's files are in it, so is the id of the bundle that they make: of a folder in which nothing changed no
file list is made.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import blake3
import msgspec

from kaos_cli.walk import Found
from kaos_formats.files import write_atomically

VERSION = 3
"""Of this format, of which files a bundle may have, and of how its id follows from them."""
HASH_BYTES = 32
TICK_NS = 20_000_000
"""Longer than the tick of any kernel clock (1-10 ms) that stamps files."""
COARSE_TICK_NS = 2_000_000_000
"""For file systems that keep whole seconds only."""

_encoder = msgspec.msgpack.Encoder()


class _Content(msgspec.Struct, array_like=True):
    version: int
    rules: str
    id: str
    hashes: bytes
    files: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Index:
    """``hashes`` are the BLAKE3 of ``files`` (sorted by path, encoded) in one piece; ``rules``: the ignore
    rules under which these were let in; ``id``: of the bundle of these very files, "" if some were left out.

    Of a million files that did not change only one list is in memory: that of the walk.
    """

    rules: str
    id: str
    hashes: bytes
    files: bytes | msgspec.Raw

    def paths(self) -> set[str]:
        return {file.path for file in self._files()}

    def has_just(self, files: Sequence[Found]) -> bool:
        """Whether its files are these (sorted by path), all as they were."""
        try:
            return bool(self.hashes) and memoryview(self.files) == _encoder.encode(files)
        except UnicodeEncodeError:
            return False

    def compare(self, files: Sequence[Found]) -> tuple[list[bytes], set[str]]:
        """The hashes of those of ``files`` that are as they were, empty for what has to be read; and the
        paths that are gone.
        """
        known = dict(zip(self._files(), split(self.hashes), strict=True))
        gone = {file.path for file in known} - {file.path for file in files}
        return [known.get(file, b"") for file in files], gone

    def _files(self) -> list[Found]:
        return msgspec.msgpack.decode(self.files, type=list[Found])


EMPTY = Index("", "", b"", _encoder.encode([]))


def split(hashes: bytes | bytearray) -> list[bytes]:
    """Each of some hashes that are in one piece."""
    return [hash_ for (hash_,) in struct.iter_unpack(f"{HASH_BYTES}s", hashes)]


def path_of(cache: Path, root: Path) -> Path:
    name = blake3.blake3(os.fsencode(os.path.realpath(root))).hexdigest()[:32]
    return cache / "index" / f"{name}.mpk"


def load(path: Path) -> Index:
    """The index at ``path``; an empty one when it is missing, damaged or of another version."""
    try:
        raw = memoryview(path.read_bytes())
    except OSError:
        return EMPTY
    if blake3.blake3(raw[HASH_BYTES:]).digest() != raw[:HASH_BYTES]:
        return EMPTY
    try:
        content = msgspec.msgpack.decode(raw[HASH_BYTES:], type=_Content)
    except msgspec.DecodeError:
        return EMPTY
    if content.version != VERSION:
        return EMPTY
    return Index(content.rules, content.id, content.hashes, content.files)


def save(path: Path, rules: str, id_: str, hashes: bytes, files: Sequence[Found]) -> None:
    """Write an `Index`. A cache that cannot be written is no reason to fail."""
    raw = bytearray(HASH_BYTES)
    _encoder.encode_into((VERSION, rules, id_, hashes, files), raw, HASH_BYTES)
    with memoryview(raw) as view:
        view[:HASH_BYTES] = blake3.blake3(view[HASH_BYTES:]).digest()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, raw, durable=False)


def is_settled(file: Found, walk_started_ns: int) -> bool:
    """Whether a later change of ``file`` is sure to show in its times. Times in ns since the epoch."""
    latest = max(file.mtime_ns, file.ctime_ns)
    coarse = file.mtime_ns % 1_000_000_000 == 0 and file.ctime_ns % 1_000_000_000 == 0
    return latest + (COARSE_TICK_NS if coarse else TICK_NS) < walk_started_ns
