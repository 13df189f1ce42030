"""Which inputs are laid out on the disk, who uses them, how large they are, and which of them go first."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kaos_backend.engine.jobs.run import seals
from kaos_backend.engine.store.bytes.objects import ObjectStore
from kaos_formats.folders import clean_up, empty_folder, folder

_KEEP_S = 7 * 24 * 3600.0
_MARK = ".boot"
_TOTAL = ".bytes"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# What this version lays out; that of another one goes.
_FORMAT = "2"
# Between two looks at all that is laid out, while there is more than there may be.
_LOOK_S = 60.0
_NAME = re.compile(r"(?P<key>[0-9a-f]{64})-(?P<lineage>[0-9a-f]{8})-(?P<shared>[sp])[0-9a-f]{8}")

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Entry:
    """A folder of inputs. `shared`: only those read it who cannot write to it, so that its files may have
    other names, in other folders and in the store. `gone`: not to be found any more, and removed when its
    last user lets go. `checked`: was looked at since the engine started.
    """

    name: str
    key: str
    lineage: str
    shared: bool
    used_s: float
    users: int = 0
    gone: bool = False
    checked: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """What one folder of inputs takes of the disk, in bytes. What the store has too, or a folder that comes
    before it in the list, is not counted. `commits`: what it was used for last. `in_use`: a job has it, or
    will need it.
    """

    name: str
    bytes: int
    used_s: float
    in_use: bool
    commits: tuple[str, ...]


class LaidOut:
    """The folders below one directory: `<key>-<lineage>-<s or p><random>`, and a seal beside each.

    No name is used twice: a sandbox that still has a folder mounted takes no later one for it.

    Args:
        limit_bytes: what is not in use is removed while all takes more than this.
        wanted: the commits (as text) that jobs need which have not ended.
    """

    def __init__(
        self,
        root: Path,
        objects: ObjectStore,
        now_s: Callable[[], float],
        limit_bytes: int,
        wanted: Callable[[], set[str]],
    ) -> None:
        self._root = root
        self._objects = objects
        self._now_s = now_s
        self._limit_bytes = limit_bytes
        self._wanted = wanted
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._by_key: dict[tuple[str, bool], Entry] = {}
        # Of each lineage, those used last at the end.
        self._by_lineage: dict[tuple[str, bool], dict[Entry, None]] = {}
        self._total = self._told = 0
        self._measuring = threading.Lock()
        self._tidying: threading.Thread | None = None
        self._look_from_s = 0.0

    def open(self) -> None:
        """Remove what a crash left half made, what a power cut may have damaged, and what is old.

        Only at start, before anything is prepared.
        """
        # Laid out before this boot, it may be hollow.
        mark = f"{_BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ''} {_FORMAT}"
        self._root = folder(self._root)
        if _text(self._root / _MARK) != mark:
            self._root = empty_folder(self._root)
            (self._root / _MARK).write_text(mark)
        oldest = self._now_s() - _KEEP_S
        names: set[str] = set()
        sealed: dict[str, float] = {}
        # There is one for every point of every grid.
        with os.scandir(self._root) as found:
            for one in found:
                names.add(one.name)
                if one.name.endswith(seals.SUFFIX):
                    used_s = one.stat(follow_symlinks=False).st_mtime
                    if used_s >= oldest:
                        sealed[one.name.removesuffix(seals.SUFFIX)] = used_s
        for name, used_s in sorted(sealed.items(), key=lambda one: one[1]):
            if name in names and (parts := _NAME.fullmatch(name)):
                self.add(Entry(name, parts["key"], parts["lineage"], parts["shared"] == "s", used_s))
        # Of two of one key, the older one was to be removed.
        kept = {_MARK, _TOTAL, *self._entries, *(f"{name}{seals.SUFFIX}" for name in self._entries)}
        for name in names - kept:
            clean_up(self._root / name)
        told = _text(self._root / _TOTAL)
        # Where that is not known, the first look tells.
        self._total = self._told = int(told) if told.isdecimal() else self._limit_bytes + 1 if sealed else 0

    def path(self, entry: Entry) -> Path:
        return self._root / entry.name

    # --- who uses what

    def find(self, key: str, *, shared: bool) -> Entry | None:
        """The folder of an input, in use from now on."""
        with self._lock:
            entry = self._by_key.get((key, shared))
            if entry is not None:
                self._use(entry)
            return entry

    def newest(self, lineage: str, *, shared: bool) -> Entry | None:
        """The folder of a lineage that was used last, in use from now on: what the next is made from.

        One that is not shared is the caller's alone (and gone): none where somebody uses it.
        """
        with self._lock:
            entry = next(reversed(self._by_lineage.get((lineage, shared), {})), None)
            if entry is None:
                return None
            if not shared:
                if entry.users:
                    return None
                self._forget(entry)
            entry.users += 1
            return entry

    def new(self, key: str, lineage: str, *, shared: bool) -> Entry:
        """The name of a folder that is to be made, for `add`."""
        name = f"{key}-{lineage}-{'s' if shared else 'p'}{os.urandom(4).hex()}"
        return Entry(name, key, lineage, shared, self._now_s(), users=1, checked=True)

    def add(self, entry: Entry, written_bytes: int = 0) -> None:
        """A folder is complete, and its seal written."""
        with self._lock:
            if (other := self._by_key.get((entry.key, entry.shared))) is not None:
                self._forget(other)
            self._entries[entry.name] = entry
            self._by_key[entry.key, entry.shared] = entry
            self._by_lineage.setdefault((entry.lineage, entry.shared), {})[entry] = None
        self._count(written_bytes)

    def retire(self, entry: Entry) -> None:
        """Nobody is to find it any more."""
        with self._lock:
            self._forget(entry)

    def release(self, entry: Entry) -> None:
        """One user lets go. The last one of a folder that is gone removes it."""
        with self._lock:
            entry.users -= 1
            remove = entry.gone and not entry.users
        if remove:
            self._remove(entry)

    def _use(self, entry: Entry) -> None:
        entry.users += 1
        entry.used_s = self._now_s()
        line = self._by_lineage[entry.lineage, entry.shared]
        line[entry] = line.pop(entry)

    def _forget(self, entry: Entry) -> None:
        entry.gone = True
        if self._entries.pop(entry.name, None) is None:
            return
        if self._by_key.get((entry.key, entry.shared)) is entry:
            del self._by_key[entry.key, entry.shared]
        del self._by_lineage[entry.lineage, entry.shared][entry]

    def _remove(self, entry: Entry) -> None:
        path = self.path(entry)
        # First: half a folder must not be taken for a whole one.
        seals.place(path).unlink(missing_ok=True)
        clean_up(path)

    # --- how much there is

    def usage(self) -> list[Usage]:
        """What each folder takes; what is in use first, then by when it was used last."""
        with self._measuring:
            return [usage for _, usage in self._measure()]

    def evict(self, excess_bytes: int) -> int:
        """Remove what is not in use, the least recently used first, until it comes to so many bytes.

        Returns the bytes that are free for it, once all is removed.
        """
        return self._evict(lambda usage, freed: freed < excess_bytes and not usage.in_use)

    def discard(self, unneeded: Callable[[Usage], bool]) -> int:
        """Remove what is `unneeded`; what somebody has in use goes when he lets go of it.

        Returns the bytes that are free for it now.
        """
        return self._evict(lambda usage, _: unneeded(usage), used=True)

    def _evict(self, goes: Callable[[Usage, int], bool], *, used: bool = False) -> int:
        """`goes`: whether a folder is to go after so many bytes; `used`: even if somebody has it in use."""
        freed = 0
        with self._measuring:
            before = self._total
            found = self._measure()
            total = sum(usage.bytes for _, usage in found)
            for entry, usage in reversed(found):
                if not goes(usage, freed):
                    continue
                with self._lock:
                    if entry.gone or (entry.users and not used):
                        continue
                    self._forget(entry)
                    if entry.users:
                        continue
                self._remove(entry)
                freed += usage.bytes
            if freed:
                log.info("inputs of %d bytes that no job uses were removed", freed)
            with self._lock:
                # What was laid out meanwhile may count twice, until the next look.
                self._total += total - freed - before
            self._tell()
        return freed

    def tidy(self) -> None:
        """Begin to remove what is too much."""
        with self._lock:
            busy = self._tidying is not None and self._tidying.is_alive()
            if busy or self._total <= self._limit_bytes or self._now_s() < self._look_from_s:
                return
            self._tidying = threading.Thread(target=self._tidy, name="inputs", daemon=True)
            self._tidying.start()

    def join(self) -> None:
        """Wait for what `tidy` has begun."""
        if self._tidying is not None:
            self._tidying.join()

    def _tidy(self) -> None:
        try:
            # What is not known for sure is measured first.
            self.evict(0)
            while self._total > self._limit_bytes:
                if not self.evict(self._total - self._limit_bytes):
                    # All of it is in use.
                    self._look_from_s = self._now_s() + _LOOK_S
                    return
        except Exception:
            log.exception("inputs laid out could not be removed")

    def _measure(self) -> list[tuple[Entry, Usage]]:
        wanted = self._wanted()
        with self._lock:
            entries = list(self._entries.values())
        known = {entry: seals.read(self.path(entry)) for entry in entries}
        needed = {
            entry: bool(entry.users or (seal is not None and not wanted.isdisjoint(seal.commits)))
            for entry, seal in known.items()
        }
        entries.sort(key=lambda entry: (needed[entry], entry.used_s), reverse=True)
        counted: set[int] = set()
        found = []
        for entry in entries:
            seal = known[entry]
            linked = {} if seal is None else seal.linked
            counted |= {
                inode for hash_, inode in linked.items() if self._objects.inode(bytes.fromhex(hash_)) == inode
            }
            size = sum(_blocks(self.path(entry), counted))
            commits = () if seal is None else tuple(seal.commits)
            found.append((entry, Usage(entry.name, size, entry.used_s, needed[entry], commits)))
        return found

    def _count(self, written_bytes: int) -> None:
        with self._lock:
            self._total += written_bytes
        if abs(self._total - self._told) >= 1 << 20:
            self._tell()

    def _tell(self) -> None:
        """Note what there is, so that the next start need not look at every file."""
        self._told = self._total
        try:
            (self._root / _TOTAL).write_text(str(self._total))
        except OSError as error:
            log.warning("how much is laid out could not be noted: %s", error)


def _blocks(top: Path, counted: set[int]) -> Iterator[int]:
    """The bytes of the disk of each inode below a folder, those of `counted` left out; it gets those that may
    be met again."""
    todo = [os.fspath(top)]
    while todo:
        try:
            with os.scandir(todo.pop()) as found:
                for one in found:
                    status = one.stat(follow_symlinks=False)
                    if one.is_dir(follow_symlinks=False):
                        todo.append(one.path)
                    elif status.st_nlink > 1:
                        if status.st_ino in counted:
                            continue
                        counted.add(status.st_ino)
                    yield status.st_blocks * 512
        except OSError:
            continue


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
