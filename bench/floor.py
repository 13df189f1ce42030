"""What the bare work takes: `python -m bench.floor pack|copy|walk FOLDER [OUT]`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from blake3 import blake3

_BATCH = 1000
_STEP_BYTES = 8 << 20


def _files(folder: str) -> Iterator[tuple[str, int]]:
    """Paths and sizes of all files."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path)
        else:
            yield entry.path, entry.stat(follow_symlinks=False).st_size


def pack(folder: str, out: str) -> None:
    """Read every file, hash it, append both to one file, and sync that."""
    target = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    parts: list[bytes] = []
    for path, size in _files(folder):
        source = os.open(path, os.O_RDONLY)
        data = os.read(source, size)
        os.close(source)
        parts += (blake3(data).digest(), data)
        if len(parts) >= _BATCH:
            os.writev(target, parts)
            parts = []
    os.writev(target, parts or [b""])
    os.fsync(target)


def copy(folder: str, out: str) -> None:
    """Hash every file with all cores, copy it in the kernel, and sync the copy."""
    for number, (path, size) in enumerate(_files(folder)):
        source = os.open(path, os.O_RDONLY)
        hasher = blake3(max_threads=blake3.AUTO)
        block = memoryview(bytearray(min(size, _STEP_BYTES)))
        while count := os.readv(source, [block]):
            hasher.update(block[:count])
        target = os.open(f"{out}.{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        done = 0
        while done < size:
            done += os.copy_file_range(source, target, size - done, done)
        os.fsync(target)


def main() -> None:
    what, folder, *out = sys.argv[1:]
    if what == "walk":
        print(sum(1 for _ in _files(folder)))
    else:
        {"pack": pack, "copy": copy}[what](folder, *out)


if __name__ == "__main__":
    main()
