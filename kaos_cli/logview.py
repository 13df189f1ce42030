"""``kaos train logs``: the lines of a build and its trials, prefixed where they are of several."""

from __future__ import annotations

import json
import time
from typing import Any

import typer

from kaos_cli.client import ConnectionLost
from kaos_cli.errors import INTERRUPTED, OK, KaosError
from kaos_cli.session import Session
from kaos_cli.text import printable
from kaos_cli.watch import PASSING, PATIENCE_S, PAUSE_MAX_S, exit_code

Line = dict[str, Any]


def prefix(line: Line, several: bool) -> str:
    if not several:
        return ""
    return "build   | " if line.get("source") == "build" else f"trial {line['trial']} | "


class Reader:
    """Drops the lines that were shown already when a stream that broke off is read again."""

    def __init__(self) -> None:
        self._last: dict[object, str] = {}

    def is_new(self, line: Line, resumed: bool) -> bool:
        key = (line.get("source"), line.get("model"))
        stamp = str(line.get("ts") or "")
        if resumed and stamp and stamp <= self._last.get(key, ""):
            return False
        self._last[key] = stamp
        return True


def logs(
    session: Session, ws: str, ref: str, trial: int | None, build: bool, follow: bool, tail: int | None
) -> int:
    """Print the logs; the exit code: with ``follow`` that of the job when it ends."""
    several = trial is None and not build
    reader, resumed = Reader(), False
    last_alive = time.monotonic()
    printed = False
    try:
        while True:
            try:
                # The tail was shown; what came since is all of it wanted.
                wanted_tail = None if resumed else tail
                for line in session.client.logs(ws, ref, trial, build, follow, wanted_tail):
                    last_alive = time.monotonic()
                    if line.get("end"):
                        return exit_code(line["state"]) if follow else OK
                    if reader.is_new(line, resumed):
                        _print(session, line, several)
                        printed = True
                break
            except (ConnectionLost, KaosError) as error:
                passing = isinstance(error, ConnectionLost) or error.code in PASSING
                if not passing or not (follow or printed) or time.monotonic() - last_alive > PATIENCE_S:
                    raise _told(error) from error
                resumed = True
                time.sleep(PAUSE_MAX_S)
    except KeyboardInterrupt:
        flag = session.flag(ws)
        shown = "" if ref == "last" else f" {ref[:8]}"
        session.terminal.warn(
            f"\ndetached; the job goes on. Come back: kaos train logs -f{shown}{flag}, "
            f"end it: kaos train stop{shown}{flag}"
        )
        raise typer.Exit(INTERRUPTED) from None
    if not printed and not session.terminal.json:
        session.terminal.say("no lines yet; -f waits for them")
    return OK


def _print(session: Session, line: Line, several: bool) -> None:
    if session.terminal.json:
        print(json.dumps(line, ensure_ascii=False), flush=True)
    else:
        print(prefix(line, several) + printable(str(line["text"])), flush=True)


def _told(error: ConnectionLost | KaosError) -> KaosError:
    if isinstance(error, KaosError):
        return error
    return KaosError("connection_lost", f"the log broke off: {error}", hint="try the command again")
