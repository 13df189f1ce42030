"""Read a bundle's files, and notice those that change meanwhile."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from blake3 import blake3

from kaos_cli.errors import KaosError
from kaos_cli.text import printable
from kaos_cli.walk import Found

Progress = Callable[[int], None]
"""Called with the number of bytes done since the last call."""


BLOCK_BYTES = 8 << 20
PARALLEL_BYTES = 1 << 20


def hash_file(path: str, file: Found, progress: Progress) -> bytes:
    """BLAKE3 of a file's content; raises KaosError (changed) if it is not what the walk saw.

    Read and not mapped: a mapped file that somebody truncates kills the process.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        if file.size <= PARALLEL_BYTES:
            content = os.read(fd, file.size + 1)
            if len(content) == file.size and is_same(os.fstat(fd), file):
                progress(file.size)
                return blake3(content).digest()
            raise changed(path)
        from concurrent.futures import ThreadPoolExecutor

        hasher = blake3(max_threads=blake3.AUTO)
        done = 0
        # One block is read while the other is hashed.
        blocks = [memoryview(bytearray(BLOCK_BYTES)) for _ in range(2)]
        with ThreadPoolExecutor(1) as reader:
            reading = reader.submit(os.readv, fd, blocks[:1])
            while count := reading.result():
                block = blocks[0]
                blocks.reverse()
                reading = reader.submit(os.readv, fd, blocks[:1])
                hasher.update(block[:count])
                done += count
                progress(count)
        if done == file.size and is_same(os.fstat(fd), file):
            return hasher.digest()
        raise changed(path)
    except OSError as error:
        raise unreadable(path, error) from error
    finally:
        os.close(fd)


def is_same(status: os.stat_result, file: Found) -> bool:
    return (
        status.st_size == file.size
        and status.st_mtime_ns == file.mtime_ns
        and status.st_ctime_ns == file.ctime_ns
        and stat.S_ISREG(status.st_mode)
    )


def changed(path: str) -> KaosError:
    return KaosError(
        "changed",
        f"{printable(path)} changed while it was being packed",
        hint="deploy again when nothing writes to it, or leave it out with .kaosignore",
    )


def unreadable(path: str, error: OSError) -> KaosError:
    return KaosError(
        "invalid_bundle",
        f"cannot read {printable(path)}: {error.strerror}",
        hint="make it readable, or leave it out with .kaosignore",
    )
