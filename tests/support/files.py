"""Folders of a test's own, on their way into a store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kaos_backend.engine.store.store import NewFile, Store


def new_files(folder: Path) -> Iterator[NewFile]:
    """Every regular file below `folder`, at its path there."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as content:
                yield NewFile(f"/{path.relative_to(folder)}", content)


def ingest(store: Store, folder: Path, tag: str = "d") -> bytes | None:
    """The root of a tree with the files below `folder`."""
    with store.stage(new_files(folder), tag) as staged, store.write() as txn:
        return txn.adopt(staged)


def nest(folder: Path, depth: int, file: str = "") -> None:
    """`depth` folders called d inside each other, with an empty file in the last."""
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        parent, fd = fd, os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(parent)
    if file:
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
