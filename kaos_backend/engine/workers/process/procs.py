"""What /proc tells of processes, for the launcher: standard library only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

PAGE = os.sysconf("SC_PAGE_SIZE")
_AT_ONCE = 1 << 16


def read(path: str) -> bytes:
    """A file of /proc; by a third of the calls that an open file object takes. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # What is short comes at once, and the kernel gives no more than it has ready.
        parts = []
        while part := os.read(fd, _AT_ONCE):
            parts.append(part)
    finally:
        os.close(fd)
    return b"".join(parts)


def children(pid: int) -> list[int]:
    """Of all its threads. May miss one that is being born."""
    found: list[int] = []
    for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
        found += [int(word) for word in read(f"/proc/{pid}/task/{task}/children").split()]
    return found


def descendants(pid: int) -> list[int]:
    """All living processes below `pid`. May miss some that are being born: callers sample or loop."""
    found: list[int] = []
    queue = [pid]
    while queue:
        with contextlib.suppress(OSError, ValueError):
            below = children(queue.pop())
            found += below
            queue += below
    return found


def is_zombie(pid: int) -> bool:
    """Whether it is over and only waits to be waited for, or is gone."""
    try:
        return read(f"/proc/{pid}/stat").rpartition(b") ")[2][:1] in (b"Z", b"X", b"")
    except OSError:
        return True


def resident(pids: Iterable[int]) -> int:
    """Bytes in memory; a page counts once per process that maps it."""
    return sum(map(_rss, pids))


def proportional(pids: Iterable[int]) -> int:
    """Bytes in memory or swapped out, each page shared out among those that map it; as `resident` where
    the kernel does not tell.
    """
    return sum(map(_pss, pids))


def oom_kills(counters: str) -> int:
    """How many processes the kernel has ended for want of memory, by a file that counts it."""
    with contextlib.suppress(OSError, ValueError):
        _, found, rest = read(counters).partition(b"\noom_kill ")
        if found:
            return int(rest.partition(b"\n")[0])
    return 0


def _rss(pid: int) -> int:
    try:
        return int(read(f"/proc/{pid}/statm").split()[1]) * PAGE
    except (OSError, ValueError, IndexError):
        return 0


def _pss(pid: int) -> int:
    try:
        rows = [line.split() for line in read(f"/proc/{pid}/smaps_rollup").splitlines()]
        return sum(int(row[1]) * 1024 for row in rows if row[0] in (b"Pss:", b"SwapPss:"))
    except (OSError, ValueError, IndexError):
        return _rss(pid)
