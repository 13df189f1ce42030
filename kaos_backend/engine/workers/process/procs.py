"""What /proc tells of processes, for the launcher: standard library only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

PAGE = os.sysconf("SC_PAGE_SIZE")


def children(pid: int) -> list[int]:
    """Of all its threads. May miss one that is being born."""
    found: list[int] = []
    for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
        with open(f"/proc/{pid}/task/{task}/children", "rb") as file:  # noqa: PTH123
            found += [int(word) for word in file.read().split()]
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
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return file.read().rpartition(b") ")[2][:1] in (b"Z", b"X", b"")
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
    with contextlib.suppress(OSError, ValueError), open(counters, "rb") as file:  # noqa: PTH123
        for line in file:
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
    return 0


def _rss(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * PAGE
    except (OSError, ValueError, IndexError):
        return 0


def _pss(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:  # noqa: PTH123
            rows = [line.split() for line in file]
        return sum(int(row[1]) * 1024 for row in rows if row[0] in (b"Pss:", b"SwapPss:"))
    except (OSError, ValueError, IndexError):
        return _rss(pid)
