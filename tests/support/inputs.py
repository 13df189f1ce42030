"""Inputs laid out from trees that a test makes, and what is then on the disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kaos_backend.engine.jobs.run.inputs import InputCache, Lent
from kaos_backend.engine.jobs.spec.plan import File
from kaos_backend.engine.store.model import FileSource
from kaos_backend.engine.store.store import Store

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Version:
    """A version of one input: its tree, and the files by their paths in it."""

    root: bytes
    file: File
    content: Mapping[str, bytes]


def version(store: Store, content: Mapping[str, bytes], path: str = "/") -> Version:
    """A tree of files, of which `path` is delivered; its commit is called after it."""
    root = store.build_tree({name: FileSource(body) for name, body in content.items()})
    assert root is not None
    entry = store.stat(root, path)
    file = File(
        "data", "default", "data", "master", root.hex()[:32], entry.path, entry.hash, entry.size_bytes
    )
    below = {name: body for name, body in content.items() if name.startswith(entry.path)}
    return Version(root, file, below)


def prepared(lent: Lent, made: Version) -> Path:
    return lent.prepare([made.file], lambda _: made.root)


def used_once(cache: InputCache, made: Version, *, shared: bool) -> Path:
    """Where a job had its input, which is over by now."""
    lent = cache.lend(shared=shared)
    try:
        return prepared(lent, made)
    finally:
        lent.close()


def laid_out(folder: Path) -> dict[str, bytes]:
    """The files of a folder as paths in a tree; all are as read-only as inputs are."""
    found = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode & 0o777
        assert not path.is_symlink()
        if path.is_dir():
            assert mode == 0o555, path
        else:
            assert mode == 0o444, path
            found[f"/{path.relative_to(folder)}"] = path.read_bytes()
    return found


def disk_bytes(*tops: Path) -> int:
    """As `du`: what is below some folders takes so much, each inode once."""
    found = {}
    for top in tops:
        for folder, _, names in os.walk(top):
            for path in (folder, *(os.path.join(folder, name) for name in names)):  # noqa: PTH118
                status = os.lstat(path)
                found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())
