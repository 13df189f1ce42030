"""Writes the image store that the process runtime reads (format: docs/builder.md).

An image appears by renaming a complete, synced folder: a builder that dies leaves nothing that looks like
one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kaos_formats.files import write_atomically
from kaos_formats.folders import clean_up
from kaos_formats.images import BUILDING, CONFIG, LAYERS, ROOT, directory_name


class ImageWriter:
    """Builds images below a folder."""

    def __init__(self, images: Path) -> None:
        self._images = images
        self._building = images / BUILDING

    @contextlib.contextmanager
    def building(self, image: str) -> Iterator[Path]:
        """A private, empty folder to build `image` in; gone at the end, and with it what was not published.

        Also removes what builders that died left. Two builds of one image take turns.
        """
        self._building.mkdir(parents=True, exist_ok=True)
        self._sweep()
        folder = self._building / directory_name(image)
        with FileLock(self._lock_of(folder)):
            clean_up(folder)
            folder.mkdir()
            try:
                yield folder
            finally:
                clean_up(folder)

    def publish(self, image: str, root: Path, config: Mapping[str, Any], layers: Sequence[str] = ()) -> Path:
        """Make `root` (inside the building folder) and `config` the image's content, durably.

        `layers`: the keys of those that are to stay as long as the image does.
        """
        target = self._images / directory_name(image)
        config = {**config, "name": image, "tree": tree_digest(root)}
        with contextlib.suppress(OSError, ValueError):
            there = json.loads((target / CONFIG).read_text("utf-8"))
            if there == config and tree_digest(target / ROOT) == config["tree"]:
                write_atomically(target / LAYERS, json.dumps(list(layers)).encode())
                return target  # the same again, undamaged: workers may be using it
        staged = root.parent / "image"
        staged.mkdir()
        root.rename(staged / ROOT)
        (staged / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", "utf-8")
        (staged / LAYERS).write_text(json.dumps(list(layers)), "utf-8")
        _sync_tree(staged)
        if target.exists():
            target.rename(root.parent / "old")
        staged.rename(target)
        _sync(self._images)
        return target

    def _sweep(self) -> None:
        for folder in self._building.iterdir():
            if folder.is_dir():
                lock = FileLock(self._lock_of(folder))
                with contextlib.suppress(Timeout), lock.acquire(timeout=0):
                    clean_up(folder)

    def _lock_of(self, folder: Path) -> str:
        return f"{folder}.lock"


def tree_digest(root: Path) -> str:
    """SHA-256 over the paths, modes and contents below `root`; symbolic links count by their target."""
    total = hashlib.sha256()
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted([*names, *folders]):
            path = Path(folder) / name
            if path.is_symlink():
                what = f"l {path.readlink()}"
            elif path.is_dir():
                what = "d"
            else:
                with path.open("rb") as file:
                    what = (
                        f"f {path.stat().st_mode & 0o777:o} {hashlib.file_digest(file, 'sha256').hexdigest()}"
                    )
            total.update(f"{path.relative_to(root).as_posix()}\0{what}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def _sync_tree(root: Path) -> None:
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            if not path.is_symlink():
                _sync(path)
        _sync(Path(folder))


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
