"""What this terminal is: who reads stdout and stderr, whether there is colour, how wide it is.

stdout is the answer, stderr is progress, hints and warnings. Nothing here imports rich.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from kaos_cli.errors import JSON_VERSION

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

    def answer_lines(self, text: bytes, *, now: bool) -> None:
        """Whole lines of the answer in UTF-8; with ``now`` whoever reads stdout has them on return."""
        out = sys.stdout
        if out.encoding.lower().replace("-", "") == "utf8" and hasattr(out, "buffer"):
            # What was printed before it is in another buffer.
            out.flush()
            out.buffer.write(text)
        else:
            print(text.decode(errors="replace"), end="")
        if now:
            out.flush()

    def answer_json(self, value: Mapping[str, Any]) -> None:
        """The whole answer, with the ``version`` of its format."""
        answer = {"version": JSON_VERSION, **value}
        print(json.dumps(answer, indent=2, ensure_ascii=False, allow_nan=False))

    def answer_json_line(self, value: Mapping[str, Any]) -> None:
        """One of many answers, each a line that is read by itself."""
        self.answer_json_lines([value])

    def answer_json_lines(self, values: Iterable[Mapping[str, Any]]) -> None:
        """Some of many answers, each a line that is read by itself."""
        lines = [json.dumps({"version": JSON_VERSION, **value}, ensure_ascii=False) for value in values]
        print("\n".join(lines), flush=True)

    def say(self, text: str) -> None:
        """A remark on stderr: progress, a hint, what comes next. Not under ``--quiet`` and ``--json``, where
        a program reads stderr too: an error is JSON then."""
        if not self.quiet and not self.json:
            print(text, file=sys.stderr, flush=True)

    def flush(self) -> None:
        """Let whoever reads stdout, through a pipe too, have what was printed while the command goes on."""
        with while_read():
            sys.stdout.flush()

    def hint(self, *lines: str) -> None:
        """What to type next, a line for each, below what was printed so far."""
        sys.stdout.flush()
        for line in lines:
            self.say(f"  → {line}")

    def warn(self, text: str) -> None:
        """A remark that even ``--quiet`` lets through."""
        print(text, file=sys.stderr, flush=True)


def open_standard_streams() -> None:
    """Put /dev/null where the caller closed stdin, stdout or stderr (``>&-``).

    Else the next file or socket would get the number, and receive what is printed.
    """
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number: this one, as those below are taken by now.
            os.open(os.devnull, os.O_RDONLY if fd == 0 else os.O_WRONLY)
            setattr(sys, name, open(fd, mode, closefd=False))  # noqa: SIM115 - for as long as we run


def abandon(stream: TextIO) -> None:
    """Let what is printed to ``stream`` from now on, and what Python still holds of it, go nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


@contextmanager
def while_read() -> Iterator[None]:
    """A block that prints: when the reader of stdout goes away (``| head``) it ends, and nothing failed."""
    try:
        yield
    except BrokenPipeError:
        abandon(sys.stdout)


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
