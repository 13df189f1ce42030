"""Removal of jobs and of versions: said first, asked about, done."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer

from kaos_cli import text
from kaos_cli.errors import KaosError
from kaos_cli.session import Session

_SHOWN = 5


def remove(session: Session, ws: str, what: dict[str, Sequence[str]], force: bool, yes: bool) -> None:
    """Remove ``what`` (ids and starts of ids, by "jobs", "source" and "data") once the user agrees.

    Raises KaosError where it is refused; nothing was removed then.
    """
    request = {**what, "force": force}
    if not yes:
        would = session.client.remove(ws, request | {"dry_run": True})
        # The answer may take a while, and an idle connection does not last.
        session.client.close()
        _confirm(_told(would))
        # What was agreed to, whatever is deployed meanwhile.
        request |= {kind: would[kind] for kind in ("jobs", "source", "data")}
    removed = session.client.remove(ws, request)
    if session.terminal.json:
        session.terminal.answer_json(removed)
        return
    print(f"removed {_told(removed)}")


def _told(found: dict[str, Any]) -> str:
    parts = [f"{kind} {_few(found[kind], 6)}" for kind in ("source", "data") if found[kind]]
    if jobs := found["jobs"]:
        whose = "its models and log" if len(jobs) == 1 else "their models and logs"
        parts.append(f"{text.jobs(len(jobs))} ({_few(jobs, 8)}) with {whose}")
    return ", ".join(parts)


def _few(ids: Sequence[str], digits: int) -> str:
    return ", ".join(one[:digits] for one in ids[:_SHOWN]) + (", …" if len(ids) > _SHOWN else "")


def _confirm(what: str) -> None:
    if not sys.stdin.isatty():
        raise KaosError("usage", f"removing {what} needs a yes", hint="the same with --yes removes it")
    if not typer.confirm(f"Remove {what}?", default=False, err=True):
        raise typer.Exit(1)
