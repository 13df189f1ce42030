"""The log files of datums and jobs: where they are, and following them.

`<job>/master.log` holds the job's own lines, `<job>/<datum id>.log` those of a datum, each as
`kaos_formats.loglines` has them.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from kaos_backend.engine.jobs.db.rows import JobKey, PipelineKey
from kaos_formats import loglines

log = logging.getLogger(__name__)

MASTER = "master"
# How much of a log is read at once when its end is wanted.
_END = 1 << 16


class Span(NamedTuple):
    """Whole lines of a log: from byte `at` to byte `to`."""

    at: int
    to: int


class Logs:
    """The log directory of the engine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def pipeline_dir(self, key: PipelineKey) -> Path:
        return self.root / key.project / key.name

    def job_dir(self, key: JobKey) -> Path:
        return self.pipeline_dir(key.pipeline) / key.id

    def datum(self, key: JobKey, datum: str) -> Path:
        return self.job_dir(key) / f"{datum}.log"

    def master(self, key: JobKey) -> Path:
        return self.job_dir(key) / f"{MASTER}.log"


def note(path: Path, now_us: int, text: str) -> None:
    """`append`, for where the work must go on although its log cannot be written."""
    try:
        append(path, now_us, text)
    except OSError as e:
        log.warning("%s could not be written: %s (%s)", path, e, text)


def append(path: Path, now_us: int, text: str) -> None:
    """Add system lines; a whole `write` in append mode, so that it never cuts into a line of the worker's."""
    lines = "".join(f"{now_us} s {line}\n" for line in text.splitlines() or [""])
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    try:
        fd = os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, flags, 0o600)
    try:
        os.write(fd, lines.encode())
    finally:
        os.close(fd)


def last_lines(path: Path, since: int) -> list[str]:
    """The last lines that the user's code wrote from the byte `since` on; [] where they cannot be read."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            start = file.seek(max(since, end - _END))
            lines = file.read(_END).split(b"\n")
    except OSError:
        return []
    # Where it was cut into there is half a line, unless it is the only one.
    whole = lines[1:] if start > since and len(lines) > 2 else lines
    return [line.text for line in map(loglines.parse, whole) if line.user and line.text]


def size(path: Path) -> int:
    """Its bytes so far; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


class Tail:
    """Reads a growing file by whole lines; a file that is not there yet is empty."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def skip_to_last(self, count: int, whole: bool = False) -> None:
        """Begin `count` lines before the file's end, which is read backwards only as far as they reach.

        An unended last line counts with `whole`, as `advance` takes it only then.
        """
        try:
            with self.path.open("rb") as file:
                self._offset = _start_of_last(file, count, whole)
        except FileNotFoundError:
            return

    def advance(self, whole: bool = False) -> Span:
        """Where the lines are that are new since the last call; with `whole`, an unended last one too."""
        at = self._offset
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            if end > at:
                self._offset = end if whole else _end_of_lines(file, at, end)
        return Span(at, self._offset)

    def blocks(self, span: Span) -> Iterator[loglines.Block]:
        """Its lines; none if the file is not there any more."""
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            yield from loglines.blocks(file.fileno(), *span)


def _end_of_lines(file: BinaryIO, at: int, end: int) -> int:
    """Where the last whole line from `at` on ends."""
    start = max(at, end - loglines.BLOCK_BYTES)
    file.seek(start)
    if lines := file.read(end - start).rfind(b"\n") + 1:
        return start + lines
    # So long a line is none that was written.
    return at if start == at else end


def _start_of_last(file: BinaryIO, count: int, whole: bool) -> int:
    """Where the last `count` lines of a file begin; its beginning if it has no more than these."""
    at = file.seek(0, os.SEEK_END)
    # A line begins behind the newline of the one before; the last newline ends the last line.
    left, last = count + 1, True
    while at > 0:
        size = min(_END, at)
        at -= size
        file.seek(at)
        block = file.read(size)
        if last and whole and not block.endswith(b"\n"):
            left -= 1
        last, found = False, size
        while (found := block.rfind(b"\n", 0, found)) >= 0:
            left -= 1
            if left == 0:
                return at + found + 1
    return 0
