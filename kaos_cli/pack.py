"""Pack files into one tar + zstd stream, as a generator of chunks: nothing is ever whole in memory.

The tar headers are written here: tarfile takes 60 µs for each, which for 20,000 files is longer than reading,
hashing and compressing them. What plain ustar cannot say (long names, huge files) is left to tarfile.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence

import zstandard

from kaos_cli.bundle import BLOCK_BYTES, TREE_FILE, Bundle, Entry, Progress, changed, is_same, unreadable

Piece = bytearray | memoryview
CHUNK_BYTES = 1 << 20
# On loopback a second spent compressing is lost; level 1 packs text to a third at the speed of a fast disk.
LEVEL = 1
# Worker threads pay from a few blocks on; below that starting them costs more.
THREADS_FROM_BYTES = 16 << 20
_RECORD = 512
_USTAR_MAX = 8**11 - 1
# The header of an empty 0644 file without a name: mtime, uid and gid 0, so that equal files give equal bytes.
_MIDDLE = b"0000000\x000000000\x00"
_TAIL = b"ustar\x0000" + bytes(64) + b"0000000\x000000000\x00" + bytes(167)
_MODES = {False: b"0000644\x00", True: b"0000755\x00"}
_FIXED_SUM = {
    executable: sum(mode) + sum(_MIDDLE) + sum(b"00000000000\x00") + 8 * 32 + ord("0") + sum(_TAIL) + 0
    for executable, mode in _MODES.items()
}


def header(path: str, size: int, executable: bool) -> bytes:
    """The tar header of a regular file: 512 bytes of ustar, or tarfile's pax for what that cannot hold."""
    name = path.encode("ascii")
    if len(name) > 100 or size > _USTAR_MAX:
        info = tarfile.TarInfo(path)
        info.size, info.mode = size, 0o755 if executable else 0o644
        return info.tobuf(tarfile.PAX_FORMAT)
    size_text = b"%011o\x00" % size
    total = _FIXED_SUM[executable] + sum(name) + sum(size_text)
    return b"".join(
        (
            name.ljust(100, b"\x00"),
            _MODES[executable],
            _MIDDLE,
            size_text,
            b"00000000000\x00",
            b"%06o\x00 " % total,
            b"0",
            bytes(100),
            _TAIL,
        )
    )


def padding(size: int) -> bytes:
    return bytes(-size % _RECORD)


def tar_stream(
    bundle: Bundle, entries: Sequence[Entry], progress: Progress = lambda _: None
) -> Iterator[Piece]:
    """The tar: the tree text as first member, then ``entries`` with paths relative to the bundle's root.

    Yields pieces of any size, each good until the next one is asked for. Raises KaosError (changed) for a
    file that is no longer what was hashed.
    """
    pending = bytearray(header(TREE_FILE, len(bundle.tree), False) + bundle.tree + padding(len(bundle.tree)))
    prefix = str(bundle.root) + "/"
    # One block for all big files: fresh ones cost a page fault for every 4 KiB read.
    largest = max((file.size for file, _ in entries), default=0)
    block = memoryview(bytearray(min(BLOCK_BYTES, largest)))
    for file, _ in entries:
        path = prefix + file.path
        pending += header(file.path, file.size, file.executable)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise unreadable(path, error) from error
        try:
            if file.size < CHUNK_BYTES:
                content = os.read(fd, file.size + 1)
                done = len(content)
                pending += content
                progress(done)
            else:
                yield pending
                pending = bytearray()
                done = 0
                while done <= file.size and (count := os.readv(fd, [block])):
                    done += count
                    if done <= file.size:
                        yield block[:count]
                        progress(count)
            if done != file.size or not is_same(os.fstat(fd), file):
                raise changed(path)
        except OSError as error:
            raise unreadable(path, error) from error
        finally:
            os.close(fd)
        pending += padding(file.size)
        if len(pending) >= CHUNK_BYTES:
            yield pending
            pending = bytearray()
    yield pending + bytes(2 * _RECORD)


def compressed(pieces: Iterable[Piece], size_hint: int) -> Iterator[bytes]:
    """The zstd stream of ``pieces`` in chunks of 1 MiB (the last one shorter)."""
    threads = 2 if size_hint >= THREADS_FROM_BYTES else 0
    chunker = zstandard.ZstdCompressor(level=LEVEL, threads=threads).chunker(chunk_size=CHUNK_BYTES)
    for piece in pieces:
        yield from chunker.compress(piece)
    yield from chunker.finish()  # type: ignore[no-untyped-call]


def pack(bundle: Bundle, entries: Sequence[Entry], progress: Progress = lambda _: None) -> Iterator[bytes]:
    """The body of an upload that carries ``entries`` of ``bundle``."""
    size_hint = sum(entry.file.size for entry in entries) + len(bundle.tree)
    return compressed(tar_stream(bundle, entries, progress), size_hint)
