"""The line of a program's output that says why it ended. Pure; what a program prints is not to be trusted."""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_WIDTH = 300
"""The most characters of it that are kept."""

_TRACEBACK = "Traceback (most recent call last):"
_FRAME = re.compile(r'\s+File "([^"]+)", line ([0-9]+)')
_LIBRARY = re.compile(r"/site-packages/|/dist-packages/|/lib/python3|^<")
# The words of kaos's own programs, which end with the one line that matters.
_OWN = "kaos: "
_BUILD_STEP = re.compile(r"[^\s:]+:[0-9]+: [A-Z]+\b")
# Sequences by which a terminal is steered: CSI, OSC (to its terminator) and the two-character ones.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")


def clean(line: str) -> str:
    """``line`` as a person may see it: without what steers a terminal, at most MAX_WIDTH characters."""
    line = _ESCAPES.sub("", line[: 8 * MAX_WIDTH])
    line = "".join(c if c.isprintable() else " " if c == "\t" else "" for c in line).strip()
    return line if len(line) <= MAX_WIDTH else line[: MAX_WIDTH - 1] + "…"


def last_words(said: Sequence[str]) -> str:
    """Of the last lines of a program's output the one that says why it ended; "" if there is none.

    Of a Python traceback the exception, with the line of the user's own code that it came from; else the last
    line of all.
    """
    lines = [line.rstrip() for line in said if line.strip()]
    if not lines:
        return ""
    last = clean(lines[-1])
    if last.startswith(_OWN) or _BUILD_STEP.match(last):
        return last.removeprefix(_OWN)
    start = max((i for i, line in enumerate(lines) if line == _TRACEBACK), default=None)
    if start is not None:
        frames: list[tuple[str, str]] = []
        for line in lines[start + 1 :]:
            if not line.startswith((" ", "\t")):
                return clean(line) + _where(frames)
            if frame := _FRAME.match(line):
                frames.append((frame[1], frame[2]))
    return last


def _where(frames: Sequence[tuple[str, str]]) -> str:
    own = [frame for frame in frames if not _LIBRARY.search(frame[0])] or frames
    return f" ({clean(own[-1][0].rpartition('/')[2])}, line {own[-1][1]})" if own else ""
