"""Progress of what takes its time: bars for a person at a terminal, a plain line now and then otherwise.

Everything goes to stderr. rich is imported when the first bar is drawn, and that only after a moment: what is
over at once shows nothing at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kaos_cli import text
from kaos_cli.terminal import Terminal

DELAY_S = 0.3
LINE_EVERY_S = 10.0


class Stage:
    """One stage: ``advance`` by what was done, or ``show`` where it stands."""

    def __init__(
        self, terminal: Terminal, name: str, total: int | None, in_bytes: bool, clock: Callable[[], float]
    ):
        self._terminal = terminal
        self._name = name
        self._total = total
        self._in_bytes = in_bytes
        self._clock = clock
        self._started = clock()
        self._next_line = self._started + LINE_EVERY_S
        self._done = 0
        self._bar: Any = None
        self._task: Any = None

    def advance(self, count: int) -> None:
        self.show(self._done + count)

    def show(self, done: int, total: int | None = None, note: str = "") -> None:
        self._done = done
        self._total = total if total is not None else self._total
        now = self._clock()
        if self._terminal.bars:
            if self._bar is None and now - self._started >= DELAY_S:
                self._bar, self._task = _open_bar(self._terminal, self._name, self._in_bytes)
            if self._bar is not None:
                self._bar.update(self._task, completed=done, total=self._total, note=note)
        elif now >= self._next_line:
            self._next_line = now + LINE_EVERY_S
            self._terminal.say(f"{self._name}: {self._amount()}{', ' + note if note else ''}")

    def _amount(self) -> str:
        shown = text.size if self._in_bytes else str
        return shown(self._done) + (f" of {shown(self._total)}" if self._total else "")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@contextmanager
def stage(
    terminal: Terminal,
    name: str,
    total: int | None = None,
    in_bytes: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Stage]:
    """A stage that is over when the block is left, however that happens."""
    opened = Stage(terminal, name, total, in_bytes, clock)
    try:
        yield opened
    finally:
        opened.close()


def _open_bar(terminal: Terminal, name: str, in_bytes: bool) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.table import Column

    columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn(bar_width=24)]
    columns += (
        [DownloadColumn(), TransferSpeedColumn()] if in_bytes else [MofNCompleteColumn(), TimeElapsedColumn()]
    )
    # The note is what gives way where the terminal is narrow.
    note = TextColumn("{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
    columns += [TimeRemainingColumn(), note]
    console = Console(stderr=True, no_color=not terminal.colour, width=terminal.width)
    bar = Progress(*columns, console=console, transient=True, expand=True)
    bar.start()
    return bar, bar.add_task(name, total=None, note="")
