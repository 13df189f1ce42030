"""A large file of this machine becomes an object: copied by the kernel, hashed from the copy."""

from __future__ import annotations

import os
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from blake3 import blake3

from kaos_backend.engine.ids import new_id
from kaos_backend.engine.store.bytes.batch import Batch

_STEP_BYTES = 32 << 20
_BLOCK_BYTES = 8 << 20


class Shorter(Exception):
    """The file ended before it had as many bytes as it should."""


def copy_in(batch: Batch, fd: int, size: int) -> Generator[int, None, bytes]:
    """Take the first `size` bytes of an open file in as an object of `batch`; yields how many bytes were done
    since the last time, and returns the hash.

    It is the copy that is hashed, so that object and hash agree whatever happens to the file meanwhile; and
    it is read, not mapped, as a page that the disk fails to deliver would end the process. Copying a part,
    hashing the one before it and the disk's writing of those before that go on side by side.

    Raises Shorter, and DiskFull.
    """
    disk = batch.disk
    tmp = batch.store.tmp / new_id()
    out = disk.create(tmp)
    kept = False
    hasher = blake3(max_threads=blake3.AUTO)
    block = memoryview(bytearray(min(size, _BLOCK_BYTES)))

    def hash_part(start: int, end: int) -> None:
        while start < end:
            count = os.preadv(out, [block[: end - start]], start)
            if not count:
                raise Shorter
            hasher.update(block[:count])
            start += count

    try:
        with ThreadPoolExecutor(1, thread_name_prefix="hash") as beside:
            hashing: Future[None] | None = None
            done = 0
            while done < size:
                end = min(done + _STEP_BYTES, size)
                position = done
                while position < end:
                    copied = disk.copy(fd, out, position, end - position)
                    if not copied:
                        raise Shorter
                    position += copied
                disk.start_writing_back(out, done, end - done)
                if hashing is not None:
                    hashing.result()
                hashing = beside.submit(hash_part, done, end)
                yield end - done
                done = end
            if hashing is not None:
                hashing.result()
        kept = True
    finally:
        os.close(out)
        if not kept:
            with suppress(OSError):
                tmp.unlink()
    digest = hasher.digest()
    batch.take_large(digest, size, tmp)
    return digest
