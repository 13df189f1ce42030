"""Inputs on disk, one copy for every datum, job and pipeline that reads the same content at the same path."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kaos_backend.engine.errors import DataLoss
from kaos_backend.engine.jobs.spec.plan import File
from kaos_backend.engine.store.model import FileSource, Subtree
from kaos_backend.engine.store.store import Store
from kaos_formats.folders import clean_up, empty_folder, folder

_VERSION = b"1"
_KEEP_S = 7 * 24 * 3600.0
_MARK = ".boot"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def input_key(files: Sequence[File]) -> str:
    """64 hex digits over (path, content hash) of everything one input delivers to one datum."""
    digest = hashlib.blake2b(_VERSION, digest_size=32)
    for file in sorted(files, key=lambda f: f.path):
        path = file.path.encode()
        digest.update(len(path).to_bytes(8, "big") + path + file.hash + bytes([file.empty_files]))
    return digest.hexdigest()


class InputCache:
    """Materialised inputs below one directory: `<key>/<path in repo>`.

    An entry that no job has used for a week goes at the next start.
    """

    def __init__(self, store: Store, root: Path, now_s: Callable[[], float] = time.time) -> None:
        self._store = store
        self._root = root
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()
        self._used: set[str] = set()
        self._now_s = now_s

    def open(self) -> None:
        """Remove what a crash left half made, what a power cut may have damaged, and what is old.

        Only at start, before anything is prepared.
        """
        # Laid out before this boot, it may be hollow; before contents were compared with their hashes, wrong.
        mark = f"{_BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ''} verified"
        self._root = folder(self._root)
        if _text(self._root / _MARK) != mark:
            self._root = empty_folder(self._root)
            (self._root / _MARK).write_text(mark)
        oldest = self._now_s() - _KEEP_S
        for entry in self._root.iterdir():
            # Finished ones have their key as name.
            finished = len(entry.name) == 64 and entry.is_dir() and not entry.is_symlink()
            if entry.name != _MARK and not (finished and entry.stat().st_mtime >= oldest):
                clean_up(entry)

    def prepare(self, files: Sequence[File], root_of: Callable[[File], bytes]) -> Path:
        """The directory that holds `files`, all of one input; `root_of` gives the tree of a file's commit."""
        key = input_key(files)
        dest = self._root / key
        if key in self._used:
            return dest
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        # Datums that start together share one copy; the others wait for it.
        with lock:
            if dest.exists():
                os.utime(dest)
            else:
                try:
                    self._lay_out(files, root_of, dest)
                except DataLoss as error:
                    raise error.at(_holder(files, error.where)) from error
        with self._guard:
            self._used.add(key)
            self._locks.pop(key, None)
        return dest

    def _lay_out(self, files: Sequence[File], root_of: Callable[[File], bytes], dest: Path) -> None:
        if len(files) == 1 and not files[0].empty_files:
            self._store.materialize(root_of(files[0]), files[0].path, dest)
            return
        entries: dict[str, Subtree | FileSource] = {}
        for file in files:
            root = root_of(file)
            if file.empty_files:
                for entry in self._store.walk(root, file.path):
                    if entry.kind == "file":
                        entries[entry.path] = FileSource(b"")
            else:
                entries[file.path] = Subtree(root, file.path)
        made = self._store.build_tree(entries)
        if made is None:
            dest.mkdir()
        else:
            self._store.materialize(made, "/", dest)


def _holder(files: Sequence[File], path: str) -> str:
    """The commit that `path`, found below one of `files`, comes from."""
    file = next((file for file in files if path.startswith(file.path)), files[0])
    return f"repo {file.project}/{file.repo} at commit {file.commit}"


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
