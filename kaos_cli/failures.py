"""Why a job's trials failed: what they said last, grouped so that many of one kind are told once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kaos_cli.client import ConnectionLost
from kaos_cli.errors import KaosError
from kaos_cli.session import Session
from kaos_cli.text import printable

Json = Mapping[str, Any]
MAX_READ = 5
"""Trials whose log is read; the others of a big grid mostly fail alike."""
TAIL = 60
MAX_LINES = 3
MAX_WIDTH = 300
MAX_NUMBERS = 6
# These reasons do not tell what went wrong; "out of memory" and "timed out" do.
_BLANK_REASONS = ("exit code", "killed by signal")

_TRACEBACK = "Traceback (most recent call last):"
_FRAME = re.compile(r'\s+File "([^"]+)", line ([0-9]+)')
_LIBRARY = re.compile(r"/site-packages/|/lib/python3|^<")


def show_failures(session: Session, ws: str, job: Json) -> None:
    """Print a paragraph for each kind of failure: why, which trials, what they said, where their log is."""
    short, flag = job["id"][:8], session.flag(ws)
    for stage in job["stages"]:
        if stage["state"] == "failed" and not stage["trials"]:
            session.terminal.hint(f"kaos train logs {short} --stage {stage['name']}{flag} shows all of it")
            return
    kinds: dict[tuple[str, str], list[int]] = {}
    words: dict[tuple[str, str], list[str]] = {}
    failed = [trial for trial in job["trials"] if trial["state"] == "failed"]
    for place, trial in enumerate(sorted(failed, key=lambda trial: trial["trial"])):
        reason = trial["reason"] or "failed"
        said = _said(session, ws, job, trial) if place < MAX_READ else []
        # What was printed before the last line differs from trial to trial, why they failed does not.
        kind = (reason, said[-1] if said else "")
        kinds.setdefault(kind, []).append(trial["trial"])
        words.setdefault(kind, said)
    for kind, numbers in kinds.items():
        print(printable(f"{_named(numbers)} failed: {kind[0]}"))
        for line in words[kind]:
            print(f"    {printable(line)}")
        session.terminal.hint(f"kaos train logs {short} --trial {numbers[0]}{flag} shows all of it")


def _named(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:MAX_NUMBERS]))
    more = f", … ({len(numbers):,} in all)" if len(numbers) > MAX_NUMBERS else ""
    return f"{'trial' if len(numbers) == 1 else 'trials'} {shown}{more}"


def _said(session: Session, ws: str, job: Json, trial: Json) -> list[str]:
    """The last words of a failed trial whose reason does not tell all; [] where they cannot be had."""
    if not str(trial["reason"]).startswith(_BLANK_REASONS):
        return []
    try:
        log = list(session.client.logs(ws, job["id"], trial["trial"], None, follow=False, tail=TAIL))
    except (KaosError, ConnectionLost):
        return []
    return last_words([str(line["text"]) for line in log if line.get("user")])


def last_words(said: Sequence[str]) -> list[str]:
    """What the last lines of a program's output come down to, in at most MAX_LINES lines.

    Of a Python traceback the exception and the line of the user's own code that it came from.
    """
    lines = [line.rstrip() for line in said if line.strip()]
    start = max((i for i, line in enumerate(lines) if line == _TRACEBACK), default=None)
    if start is not None:
        frames: list[tuple[str, str]] = []
        for line in lines[start + 1 :]:
            if not line.startswith((" ", "\t")):
                return [_cut(line) + _where(frames)]
            if frame := _FRAME.match(line):
                frames.append((frame[1], frame[2]))
    return [_cut(line) for line in lines[-MAX_LINES:]]


def _where(frames: Sequence[tuple[str, str]]) -> str:
    own = [frame for frame in frames if not _LIBRARY.search(frame[0])] or frames
    return f"  ({own[-1][0].rpartition('/')[2]}, line {own[-1][1]})" if own else ""


def _cut(line: str) -> str:
    return line if len(line) <= MAX_WIDTH else line[: MAX_WIDTH - 1] + "…"
