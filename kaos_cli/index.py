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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import overload

import blake3
import msgspec

from kaos_cli.walk import Found
from kaos_formats.files import write_atomically

VERSION = 4
"""Of this format, of which files a bundle may have, and of how its id follows from them."""
HASH_BYTES = 32
TICK_NS = 20_000_000
"""Longer than the tick of any kernel clock (1-10 ms) that stamps files."""
COARSE_TICK_NS = 2_000_000_000
"""For file systems that keep whole seconds only."""

_FILES_A_PIECE = 10_000
_FILES_A_LOOK = 1000
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
        there = memoryview(self.files)
        at = 0
        try:
            for piece in _pieces(files):
                if there[at : at + len(piece)] != piece:
                    return False
                at += len(piece)
        except UnicodeEncodeError:
            return False
        return bool(self.hashes) and at == len(there)

    def compare(self, files: Sequence[Found]) -> tuple[list[bytes], set[str]]:
        """The hashes of those of ``files`` that are as they were, empty for what has to be read; and the
        paths that are gone.
        """
        known: list[bytes] = []
        gone: set[str] = set()
        # Side by side, as both are sorted: a million of them in a dictionary would take another 200 MB.
        old, at = self._files(), 0
        for start in range(0, len(files), _FILES_A_LOOK):
            new = files[start : start + _FILES_A_LOOK]
            there = old[at : at + len(new)]
            if [file.path for file in new] == [file.path for file in there]:
                # The same files, most of them as they were: by far the most of what is looked at.
                hashes = self._hashes(at, at + len(new))
                known += [hash_ if a == b else b"" for a, b, hash_ in zip(new, there, hashes, strict=True)]
                at += len(new)
                continue
            for file in new:
                while at < len(old) and old[at].path < file.path:
                    gone.add(old[at].path)
                    at += 1
                if at < len(old) and old[at].path == file.path:
                    known += self._hashes(at, at + 1) if old[at] == file else (b"",)
                    at += 1
                else:
                    known.append(b"")
        gone.update(file.path for file in old[at:])
        return known, gone

    def _hashes(self, start: int, end: int) -> Hashes:
        return Hashes(self.hashes[start * HASH_BYTES : end * HASH_BYTES])

    def _files(self) -> list[Found]:
        return msgspec.msgpack.decode(self.files, type=list[Found])


EMPTY = Index("", "", b"", _encoder.encode([]))


class Hashes(Sequence[bytes]):
    """Hashes in one piece: those of a million files take a third of what a list of them would."""

    def __init__(self, whole: bytes | bytearray) -> None:
        self.whole = whole

    def __len__(self) -> int:
        return len(self.whole) // HASH_BYTES

    def __iter__(self) -> Iterator[bytes]:
        return (hash_ for (hash_,) in struct.iter_unpack(f"{HASH_BYTES}s", self.whole))

    @overload
    def __getitem__(self, at: int) -> bytes: ...

    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...

    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(len(self)))]
        start = range(len(self))[at] * HASH_BYTES
        return bytes(self.whole[start : start + HASH_BYTES])


def path_of(cache: Path, root: Path) -> Path:
    name = blake3.blake3(os.fsencode(os.path.realpath(root))).hexdigest()[:32]
    return cache / "index" / f"{name}.mpk"


def load(path: Path) -> Index:
    """The index at ``path``; an empty one when it is missing, damaged or of another version."""
    try:
        raw = memoryview(path.read_bytes())
    except OSError:
        return EMPTY
    content_part, digest = raw[:-HASH_BYTES], raw[-HASH_BYTES:]
    if blake3.blake3(content_part).digest() != digest:
        return EMPTY
    try:
        content = msgspec.msgpack.decode(content_part, type=_Content)
    except msgspec.DecodeError:
        return EMPTY
    if content.version != VERSION:
        return EMPTY
    return Index(content.rules, content.id, content.hashes, content.files)


def save(path: Path, rules: str, id_: str, hashes: bytes | bytearray, files: Sequence[Found]) -> None:
    """Write an `Index`. A cache that cannot be written is no reason to fail."""
    hasher = blake3.blake3()

    def content() -> Iterator[bytes]:
        for piece in chain([_encoder.encode((VERSION, rules, id_, hashes, msgspec.Raw()))], _pieces(files)):
            hasher.update(piece)
            yield piece
        yield hasher.digest()

    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content(), durable=False)


def _pieces(files: Sequence[Found]) -> Iterator[bytes]:
    """A list of files as msgpack has it, which for a million of them would take 100 MB in one piece."""
    yield _array_head(len(files))
    for start in range(0, len(files), _FILES_A_PIECE):
        some = files[start : start + _FILES_A_PIECE]
        yield _encoder.encode(some)[len(_array_head(len(some))) :]


def _array_head(length: int) -> bytes:
    """How msgpack begins an array."""
    if length < 1 << 4:
        return bytes([0x90 | length])
    return struct.pack(">BH", 0xDC, length) if length < 1 << 16 else struct.pack(">BI", 0xDD, length)


def unsettled(files: Sequence[Found], walk_started_ns: int) -> list[int]:
    """Which of ``files`` are not settled, by their places: see ``is_settled``."""
    limit = walk_started_ns - COARSE_TICK_NS
    # Most are, for their age alone, and that is told sooner.
    young = [at for at, file in enumerate(files) if file.mtime_ns >= limit or file.ctime_ns >= limit]
    return [at for at in young if not is_settled(files[at], walk_started_ns)]


def is_settled(file: Found, walk_started_ns: int) -> bool:
    """Whether a later change of ``file`` is sure to show in its times. Times in ns since the epoch."""
    latest = max(file.mtime_ns, file.ctime_ns)
    coarse = file.mtime_ns % 1_000_000_000 == 0 and file.ctime_ns % 1_000_000_000 == 0
    return latest + (COARSE_TICK_NS if coarse else TICK_NS) < walk_started_ns
