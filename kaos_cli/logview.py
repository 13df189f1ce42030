"""``kaos train logs``: the lines of a build and its trials, prefixed where they are of several."""

from __future__ import annotations

import time
from typing import Any

from kaos_cli.client import ConnectionLost
from kaos_cli.errors import OK, KaosError
from kaos_cli.refs import LAST
from kaos_cli.session import Session
from kaos_cli.text import printable
from kaos_cli.watch import PASSING, PATIENCE_S, PAUSE_MAX_S, attached, exit_code

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
    session: Session,
    ws: str,
    ref: str,
    trial: int | None,
    build: bool,
    follow: bool,
    tail: int | None,
    timeout_s: float | None = None,
) -> int:
    """Print the logs; the exit code: with ``follow`` that of the job when it ends.

    A follow that is interrupted or takes longer than ``timeout_s`` ends as ``watch.attached`` says.
    """
    if not follow:
        return _read(session, ws, ref, trial, build, follow, tail)
    if ref == LAST and (jobs := session.client.jobs(ws, limit=1)):
        # What is followed stays this job, also when another one is started meanwhile.
        ref = jobs[0]["id"]
    with attached(session, ws, [ref], "logs -f", timeout_s):
        return _read(session, ws, ref, trial, build, follow, tail)


def _read(
    session: Session, ws: str, ref: str, trial: int | None, build: bool, follow: bool, tail: int | None
) -> int:
    several = trial is None and not build
    reader, resumed = Reader(), False
    last_alive = time.monotonic()
    printed, code = False, OK
    while True:
        try:
            # The tail was shown; what came since is all of it wanted.
            wanted_tail = None if resumed else tail
            for line in session.client.logs(ws, ref, trial, build, follow, wanted_tail):
                last_alive = time.monotonic()
                if line.get("end"):
                    code = exit_code(line["state"]) if follow else OK
                    break
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
    if not printed and not session.terminal.json:
        session.terminal.say("no lines yet; -f waits for them")
    return code


def _print(session: Session, line: Line, several: bool) -> None:
    if session.terminal.json:
        session.terminal.answer_json_line(line)
    else:
        print(prefix(line, several) + printable(str(line["text"])), flush=True)


def _told(error: ConnectionLost | KaosError) -> KaosError:
    if isinstance(error, KaosError):
        return error
    return KaosError("connection_lost", f"the log broke off: {error}", hint="try the command again")
