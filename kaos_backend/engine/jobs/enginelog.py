"""The engine's own log, as GetLogs gives it to those who ask for no pipeline: pachd's own lines there."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

# What `logging` begins a line with: local time.
_STAMP = len("2024-01-31 12:00:00,000")


def lines(path: Path, since_us: int, tail: int) -> Iterator[str]:
    """The lines that are not older than `since_us` (microseconds since 1970), or the last `tail` of them.

    A line without a time, as those of a traceback, is as old as the one before it.
    """
    found = _recent(path, since_us)
    return iter(deque(found, maxlen=tail)) if tail else found


def _recent(path: Path, since_us: int) -> Iterator[str]:
    try:
        file = path.open(encoding="utf-8", errors="replace")
    except OSError:
        return
    wanted = False
    with file:
        for line in file:
            try:
                stamp = datetime.strptime(line[:_STAMP], "%Y-%m-%d %H:%M:%S,%f").astimezone()
            except ValueError:
                pass
            else:
                wanted = stamp.timestamp() * 1e6 >= since_us
            if wanted:
                yield line.rstrip("\n")
