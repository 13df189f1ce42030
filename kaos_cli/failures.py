"""Why a job's trials failed, those together that failed alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kaos_cli.session import Session
from kaos_cli.text import printable

Json = Mapping[str, Any]
MAX_NUMBERS = 6


def show_failures(session: Session, ws: str, job: Json) -> None:
    """Print a line for each kind of failure, which trials and why, and where their log is."""
    short, flag = job["id"][:8], session.flag(ws)
    for stage in job["stages"]:
        if stage["state"] == "failed" and not stage["trials"]:
            session.terminal.hint(f"kaos train logs {short} --stage {stage['name']}{flag} shows all of it")
            return
    for kind in job["failures"]:
        print(printable(f"{_named(kind['trials'])} failed: {kind['reason']}".removesuffix(": ")))
        session.terminal.hint(f"kaos train logs {short} --trial {kind['trials'][0]}{flag} shows all of it")


def _named(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:MAX_NUMBERS]))
    more = f", … ({len(numbers):,} in all)" if len(numbers) > MAX_NUMBERS else ""
    return f"{'trial' if len(numbers) == 1 else 'trials'} {shown}{more}"
