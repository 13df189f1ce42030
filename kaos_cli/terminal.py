"""What this terminal is: who reads stdout and stderr, whether there is colour, how wide it is.

stdout is the answer, stderr is progress, hints and warnings. Nothing here imports rich.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_WIDTH = 80


@dataclass(frozen=True, slots=True)
class Terminal:
    """``rich``: stdout is for a person who sees colour and boxes; ``bars``: stderr can show moving bars."""

    rich: bool
    bars: bool
    colour: bool
    width: int
    quiet: bool = False
    json: bool = False

    def answer(self, text: str) -> None:
        """One or more lines of the answer, on stdout; not under ``--json``."""
        if not self.json:
            print(text)

    def answer_json(self, value: Any) -> None:
        print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))

    def say(self, text: str) -> None:
        """A remark on stderr: progress, a hint, what comes next. Not under ``--quiet`` and ``--json``, where
        a program reads stderr too: an error is JSON then."""
        if not self.quiet and not self.json:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """A remark that even ``--quiet`` lets through."""
        print(text, file=sys.stderr, flush=True)


def detect(env: Mapping[str, str], quiet: bool, as_json: bool) -> Terminal:
    """The terminal of this process. NO_COLOR, TERM=dumb: plain; FORCE_COLOR: colour on a pipe too."""
    forced = env.get("FORCE_COLOR", "") not in ("", "0")
    dumb = env.get("TERM") == "dumb"
    colour_wanted = not env.get("NO_COLOR") and not dumb
    out_tty, err_tty = _is_tty(1), _is_tty(2)
    return Terminal(
        rich=not as_json and not dumb and (out_tty or (forced and colour_wanted)),
        bars=err_tty and not dumb and not quiet and not as_json,
        colour=colour_wanted and (out_tty or forced),
        width=_width(env, out_tty),
        quiet=quiet,
        json=as_json,
    )


def _is_tty(fd: int) -> bool:
    try:
        return os.isatty(fd) and not (sys.stdout if fd == 1 else sys.stderr).closed
    except (OSError, AttributeError):
        return False


def _width(env: Mapping[str, str], out_tty: bool) -> int:
    if (given := env.get("COLUMNS", "")).isdigit() and int(given) >= 20:
        return int(given)
    if out_tty:
        try:
            return max(20, os.get_terminal_size(1).columns)
        except OSError:
            pass
    return DEFAULT_WIDTH
