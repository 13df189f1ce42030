"""What RUNs made of an image's files, kept under all that decides it: layers, as Docker's cache has them.

    layers/<key>/root/…       the files, folders and links that the RUN made or changed
    layers/<key>/layer.json   what each of them is, and what the RUN removed
    layers/.making/<any>/     one in the making

A layer goes with the last image that it is part of (`images/<name>/layers.json`). It is a shorter way and no
more: what is damaged, or goes meanwhile, is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from blake3 import blake3

from kaos_formats.folders import clean_up
from kaos_formats.images import MAKING

_FORMAT = 1
_META = "layer.json"
_ROOT = "root"
_CHUNK = 1 << 20

Entries = Mapping[str, str]
"""Path below a root → "d <mode>", "f <mode> <BLAKE3>" or "l <target>"."""


class Lost(Exception):
    """A layer is damaged or gone, and the root that it was being put into is of no use any more."""


class Look:
    """What a root holds. A file is read again only after it was written to."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._read: dict[str, tuple[tuple[int, ...], str]] = {}

    def entries(self) -> Entries:
        """All that is in there now."""
        found: dict[str, str] = {}
        todo = [""]
        while todo:
            folder = todo.pop()
            with os.scandir(self._root / folder) as listing:
                for one in listing:
                    path = f"{folder}/{one.name}" if folder else one.name
                    info = one.stat(follow_symlinks=False)
                    mode = f"{stat.S_IMODE(info.st_mode):o}"
                    if one.is_symlink():
                        found[path] = f"l {os.readlink(one.path)}"  # noqa: PTH115
                    elif one.is_dir():
                        found[path] = f"d {mode}"
                        todo.append(path)
                    else:
                        found[path] = f"f {mode} {self._digest(path, info)}"
        return found

    def _digest(self, path: str, info: os.stat_result) -> str:
        # The time of change cannot be set by what runs in there.
        state = (info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
        known = self._read.get(path)
        if known is None or known[0] != state:
            known = state, file_digest(self._root / path)
            self._read[path] = known
        return known[1]


def file_digest(path: Path) -> str:
    """Of a file's content."""
    return str(blake3().update_mmap(path).hexdigest())


def key_of(before: Entries, what: object) -> str:
    """The key of what a step (`what`, as JSON) makes of a root."""
    text = json.dumps([_FORMAT, sorted(before.items()), what], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Layers:
    """The layers below a folder; `used` are the keys of those that a build asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.used: list[str] = []

    def apply(self, key: str, root: Path) -> bool:
        """Do to `root` what the step did. False: there is no such layer, and nothing was done.

        Raises Lost.
        """
        self.used.append(key)
        layer = self._folder / key
        try:
            meta = json.loads((layer / _META).read_text("utf-8"))
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            raise self._lost(key, error) from error
        try:
            entries, gone = dict(meta["entries"]), list(meta["gone"])
            if meta["digest"] != _digest_of(entries, gone):
                raise ValueError("its listing is damaged")
            for path in sorted(gone, reverse=True):
                at = root / path
                if at.is_dir() and not at.is_symlink():
                    at.rmdir()
                else:
                    at.unlink()
            for path, entry in sorted(entries.items()):
                _put(layer / _ROOT / path, root / path, entry)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._lost(key, error) from error
        return True

    def keep(self, key: str, root: Path, before: Entries, after: Entries, foreign: str = "") -> None:
        """Keep what a step made of `before`, unless it mentions the path `foreign`, which no other build has.

        A disk that has no room for it is no reason to fail.
        """
        changed = {path: entry for path, entry in after.items() if before.get(path) != entry}
        gone = [path for path, entry in before.items() if after.get(path, "-")[0] != entry[0]]
        if foreign and any(_mentions(root / path, entry, foreign) for path, entry in changed.items()):
            return
        made = self._folder / MAKING / uuid.uuid4().hex
        try:
            (made / _ROOT).mkdir(parents=True)
            for path, entry in sorted(changed.items()):
                # Folders that were there before are not among them.
                (made / _ROOT / path).parent.mkdir(parents=True, exist_ok=True)
                _put(root / path, made / _ROOT / path, entry)
            meta: dict[str, Any] = {"entries": changed, "gone": gone, "digest": _digest_of(changed, gone)}
            (made / _META).write_text(json.dumps(meta), "utf-8")
            made.rename(self._folder / key)
        except (OSError, ValueError):
            pass
        finally:
            clean_up(made)

    def _lost(self, key: str, why: Exception) -> Lost:
        with suppress(OSError):
            # As another build may be about to use it: at once, and as a whole.
            away = self._folder / MAKING / uuid.uuid4().hex
            away.parent.mkdir(exist_ok=True)
            (self._folder / key).rename(away)
            clean_up(away)
        return Lost(f"layer {key}: {why}")


def _digest_of(entries: Entries, gone: list[str]) -> str:
    return blake3(json.dumps([sorted(entries.items()), gone]).encode()).hexdigest()


def _put(source: Path, target: Path, entry: str) -> None:
    """Make `target` what `entry` says, with the content of `source`. Raises ValueError if that is another."""
    kind, _, rest = entry.partition(" ")
    if kind == "l":
        target.unlink(missing_ok=True)
        target.symlink_to(rest)
        return
    mode = int(rest.partition(" ")[0], 8)
    if kind == "d":
        target.mkdir(exist_ok=True)
    else:
        target.unlink(missing_ok=True)  # it may be write-protected, or have another name
        shutil.copyfile(source, target, follow_symlinks=False)
        if file_digest(target) != rest.partition(" ")[2]:
            raise ValueError(f"{target.name} is not what it was")
        info = source.stat()
        os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
    target.chmod(mode)


def _mentions(path: Path, entry: str, text: str) -> bool:
    if entry[0] != "f":
        return text in entry
    needle = text.encode()
    with path.open("rb") as file:
        tail = b""
        while data := file.read(_CHUNK):
            if needle in tail + data:
                return True
            tail = data[-len(needle) :]
    return False
