"""Inputs on disk, one copy for every datum, job and pipeline that reads the same content at the same path."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kaos_backend.engine.errors import DataLoss, EngineError, Unknown
from kaos_backend.engine.jobs.run.names import place_of_inputs
from kaos_backend.engine.jobs.spec.plan import File
from kaos_backend.engine.store.model import CommitKey, FileSource, Subtree
from kaos_backend.engine.store.store import Store
from kaos_formats.folders import clean_up, empty_folder, folder, remove_tree

_VERSION = b"1"
_KEEP_S = 7 * 24 * 3600.0
_MARK = ".boot"
_SEAL = ".seal"
_LOCKS = 64
_REMEMBERED = 10_000
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

log = logging.getLogger(__name__)


def input_key(files: Sequence[File]) -> str:
    """64 hex digits over (path, content hash) of everything one input delivers to one datum."""
    digest = hashlib.blake2b(_VERSION, digest_size=32)
    for file in sorted(files, key=lambda f: f.path):
        path = file.path.encode()
        digest.update(len(path).to_bytes(8, "big") + path + file.hash + bytes([file.empty_files]))
    return digest.hexdigest()


def root_of(store: Store, commit: CommitKey) -> bytes:
    """The tree that an input is of. Raises EngineError: the commit is gone, or has no files."""
    root = store.inspect_commit(commit).root
    if root is None:
        raise EngineError(f"commit {commit} has no files")
    return root


class InputCache:
    """Materialised inputs below one directory: `<key>/<path in repo>`, and `<key>.seal` beside each.

    A seal is a digest of what `stat` says of every file, taken when they were laid out: it tells whether code
    that nothing kept from it has changed them since. It is as old as the last use of its entry, and an entry
    that no job has used for a week goes at the next start.

    Args:
        protected: no run can change the files of its inputs; then one look at each after a start is enough.
    """

    def __init__(
        self, store: Store, root: Path, now_s: Callable[[], float] = time.time, *, protected: bool = False
    ) -> None:
        self._store = store
        self._root = root
        # By key; that two keys may share one costs a wait.
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))
        self._used: set[str] = set()
        self._now_s = now_s
        self._protected = protected

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
        names, kept = set(), {_MARK}
        # There is one for every point of every grid.
        with os.scandir(self._root) as found:
            for entry in found:
                names.add(entry.name)
                if entry.name.endswith(_SEAL) and entry.stat(follow_symlinks=False).st_mtime >= oldest:
                    kept |= {entry.name, entry.name.removesuffix(_SEAL)}
        for name in names - kept:
            clean_up(self._root / name)

    def prepare(self, files: Sequence[File], root_of: Callable[[File], bytes], seen: set[str]) -> Path:
        """The directory that holds `files`, all of one input, exactly as they are stored.

        `root_of` gives the tree of a file's commit. `seen` belongs to the job: what is in it is not looked at
        again, so that a job pays for one look at each of its inputs, not for one per datum.
        """
        key = input_key(files)
        dest = self._root / key
        if key in seen:
            return dest
        # Datums that start together share one copy; the others wait for it.
        with self._locks[int(key[:8], 16) % _LOCKS]:
            if key not in seen and not (self._protected and key in self._used):
                self._make_sure_of(files, root_of, dest)
            seen.add(key)
            if len(self._used) >= _REMEMBERED:
                self._used.clear()  # each is looked at once more
            self._used.add(key)
        return dest

    def _make_sure_of(self, files: Sequence[File], root_of: Callable[[File], bytes], dest: Path) -> None:
        """Lay the input out, unless it is there as it was laid out."""
        seal = dest.with_name(f"{dest.name}{_SEAL}")
        if os.path.lexists(dest) and _text(seal) != _digest(dest):
            log.warning("%s was changed or damaged and is laid out again", dest)
            if problem := remove_tree(dest):
                raise Unknown(f"{dest} was changed since it was laid out and cannot be made again: {problem}")
        if not dest.exists():
            try:
                with self._store.leases.take():
                    self._lay_out(files, root_of, dest)
            except DataLoss as error:
                raise error.at(_holder(files, error.where)) from error
            # One that a crash cuts short is no seal: the input is laid out again.
            seal.write_text(_digest(dest))
        else:
            os.utime(seal)

    def _lay_out(self, files: Sequence[File], root_of: Callable[[File], bytes], dest: Path) -> None:
        if len(files) == 1 and not files[0].empty_files:
            root, path = root_of(files[0]), files[0].path
            self._store.materialize(root, path, dest, place_of_inputs(self._store, root, path))
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


def _digest(top: Path) -> str:
    """What `stat` says of a folder and of all that is below it; empty where it cannot be read.

    Whoever changes a file's content leaves a trace here: its ctime is nobody's to set.
    """
    digest = hashlib.blake2b(digest_size=32)
    todo = [os.fspath(top)]
    try:
        while todo:
            at = todo.pop()
            with os.scandir(at) as found:
                entries = sorted(found, key=lambda entry: entry.name)
            _add(digest, "", os.lstat(at))
            for entry in entries:
                _add(digest, entry.name, entry.stat(follow_symlinks=False))
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
    except OSError:
        return ""
    return digest.hexdigest()


def _add(digest: hashlib.blake2b, name: str, status: os.stat_result) -> None:
    times = (status.st_mtime_ns, status.st_ctime_ns)
    digest.update(repr((name, status.st_mode, status.st_ino, status.st_size, *times)).encode())
