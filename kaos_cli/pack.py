"""Pack files into one tar + zstd stream, as a generator of chunks: nothing is ever whole in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import zstandard

from kaos_cli.bundle import Bundle, Entry
from kaos_cli.contents import BLOCK_BYTES, Progress, changed, is_same, unreadable
from kaos_formats.tar import END, header, padding
from kaos_formats.tree import TREE_FILE

Piece = bytearray | memoryview
CHUNK_BYTES = 1 << 20
# On loopback a second spent compressing is lost; level 1 packs text to a third at the speed of a fast disk.
LEVEL = 1
# Worker threads pay from a few blocks on; below that starting them costs more.
THREADS_FROM_BYTES = 16 << 20
SAMPLE_BYTES = 32 << 10
WORTH = 0.9
"""What compresses to more than this is sent as it is."""
BLOCK_LIMIT = 128 << 10
STORED_BYTES = CHUNK_BYTES - BLOCK_LIMIT
"""A frame of so many stored bytes is no more than a chunk."""
NOTHING: Mapping[str, int] = {}


def tar_stream(
    bundle: Bundle,
    entries: Sequence[Entry],
    progress: Progress = lambda _: None,
    begun: Mapping[str, int] = NOTHING,
) -> Iterator[Piece]:
    """The tar: the tree text as first member, then ``entries`` with paths relative to the bundle's root;
    of contents (by hash) that are ``begun`` only what follows so many bytes.

    Yields pieces of any size, each good until the next one is asked for. Raises KaosError (changed) for a
    file that is no longer what was hashed.
    """
    pending = bytearray(header(TREE_FILE, len(bundle.tree), 0o644) + bundle.tree + padding(len(bundle.tree)))
    prefix = str(bundle.root) + "/"
    # One block for all big files: fresh ones cost a page fault for every 4 KiB read.
    largest = max((entry.file.size for entry in entries), default=0)
    block = memoryview(bytearray(min(BLOCK_BYTES, largest)))
    for file, hash_, made in entries:
        path = prefix + file.path
        offset = begun.get(hash_, 0) if made is None else 0
        rest = file.size - offset
        pending += header(file.path, rest, 0o755 if file.executable else 0o644, offset=offset)
        if made is not None:
            pending += made + padding(file.size)
            progress(file.size)
            continue
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise unreadable(path, error) from error
        try:
            done = offset
            if offset:
                os.lseek(fd, offset, os.SEEK_SET)
            if rest < CHUNK_BYTES:
                content = os.read(fd, rest + 1)
                done += len(content)
                pending += content
                progress(len(content))
            else:
                yield pending
                pending = bytearray()
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
        pending += padding(rest)
        if len(pending) >= CHUNK_BYTES:
            yield pending
            pending = bytearray()
    yield pending + END


def compressed(pieces: Iterable[Piece], size_hint: int) -> Iterator[bytes]:
    """The zstd stream of ``pieces`` in chunks of 1 MiB (the last one of a frame shorter).

    Frames of compressed blocks and of stored ones take turns, as a sample of each piece says.
    """
    threads = 2 if size_hint >= THREADS_FROM_BYTES else 0
    compressor = zstandard.ZstdCompressor(level=LEVEL, threads=threads)
    sampler = zstandard.ZstdCompressor(level=LEVEL)
    chunker = None
    for piece in pieces:
        view = memoryview(piece)
        if is_worth_it(sampler, view):
            chunker = chunker or compressor.chunker(chunk_size=CHUNK_BYTES)
            yield from chunker.compress(piece)
            continue
        if chunker is not None:
            yield from chunker.finish()  # type: ignore[no-untyped-call]
            chunker = None
        for start in range(0, len(view), STORED_BYTES):
            yield stored(view[start : start + STORED_BYTES])
    if chunker is not None:
        yield from chunker.finish()  # type: ignore[no-untyped-call]


def is_worth_it(sampler: zstandard.ZstdCompressor, piece: memoryview) -> bool:
    """Whether a piece is small, or becomes a tenth smaller where it begins, or in its middle."""
    if len(piece) < 2 * SAMPLE_BYTES:
        return True
    middle = len(piece) // 2
    return any(
        len(sampler.compress(piece[at : at + SAMPLE_BYTES])) < WORTH * SAMPLE_BYTES for at in (0, middle)
    )


def stored(data: memoryview) -> bytes:
    """A frame of zstd that holds some data as it is (RFC 8878, 3.1.1).

    No flags, and the smallest window that allows for blocks of 128 KiB; three bytes before each block say
    whether it is the last one, that it is raw, and its size.
    """
    parts: list[bytes | memoryview] = [b"\x28\xb5\x2f\xfd\x00\x38"]
    for start in range(0, len(data), BLOCK_LIMIT):
        block = data[start : start + BLOCK_LIMIT]
        last = start + BLOCK_LIMIT >= len(data)
        parts += ((len(block) << 3 | last).to_bytes(3, "little"), block)
    return b"".join(parts)


def pack(
    bundle: Bundle,
    entries: Sequence[Entry],
    progress: Progress = lambda _: None,
    begun: Mapping[str, int] = NOTHING,
) -> Iterator[bytes]:
    """The body of an upload that carries ``entries`` of ``bundle``; see ``tar_stream``."""
    size_hint = sum(entry.file.size - begun.get(entry.hash, 0) for entry in entries) + len(bundle.tree)
    return compressed(tar_stream(bundle, entries, progress, begun), size_hint)
