"""``kaos train logs``: the lines of the stages and their trials, prefixed where they are of several."""

from __future__ import annotations

import time
from typing import Any

from kaos_cli.client import ConnectionLost
from kaos_cli.errors import OK, KaosError
from kaos_cli.refs import LAST
from kaos_cli.session import Session
from kaos_cli.text import printable
from kaos_cli.watch import ACTIVE, PASSING, PATIENCE_S, PAUSE_MAX_S, attached, exit_code

Line = dict[str, Any]


def prefix(line: Line, several: bool) -> str:
    if not several:
        return ""
    return f"{line['stage']:<7} | " if line.get("trial") is None else f"trial {line['trial']} | "


class Reader:
    """Drops the lines that were shown already when a stream that broke off is read again."""

    def __init__(self) -> None:
        self._last: dict[object, str] = {}

    def is_new(self, line: Line, resumed: bool) -> bool:
        key = (line.get("stage"), line.get("model"))
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
    stage: str | None,
    follow: bool,
    tail: int | None,
    timeout_s: float | None = None,
) -> int:
    """Print the logs; the exit code: with ``follow`` that of the job when it ends.

    A follow that is interrupted or takes longer than ``timeout_s`` ends as ``watch.attached`` says.
    """
    if not follow:
        return _read(session, ws, ref, trial, stage, follow, tail)
    if ref == LAST and (jobs := session.client.jobs(ws, limit=1)):
        # What is followed stays this job, also when another one is started meanwhile.
        ref = jobs[0]["id"]
    with attached(session, ws, [ref], "logs -f", timeout_s):
        return _read(session, ws, ref, trial, stage, follow, tail)


def _read(
    session: Session, ws: str, ref: str, trial: int | None, stage: str | None, follow: bool, tail: int | None
) -> int:
    several = trial is None and stage is None
    reader, resumed = Reader(), False
    last_alive = time.monotonic()
    printed = False
    while True:
        try:
            # The tail was shown; what came since is all of it wanted.
            wanted_tail = None if resumed else tail
            for line in session.client.logs(ws, ref, trial, stage, follow, wanted_tail):
                last_alive = time.monotonic()
                if line.get("end"):
                    end = line
                    break
                if line.get("waiting"):
                    _tell_waiting(session, line)
                elif reader.is_new(line, resumed):
                    _print(session, line, several)
                    printed = True
            break
        except (ConnectionLost, KaosError) as error:
            passing = isinstance(error, ConnectionLost) or error.code in PASSING
            if not passing or not (follow or printed) or time.monotonic() - last_alive > PATIENCE_S:
                raise _told(error) from error
            resumed = True
            time.sleep(PAUSE_MAX_S)
    if not printed:
        _tell_nothing(session, end, trial)
    return exit_code(end["state"]) if follow else OK


def _tell_nothing(session: Session, end: Line, trial: int | None) -> None:
    """Say why a log has no lines. Raises KaosError (waiting) when nothing runs yet that could have any."""
    what, about = ("the job", end) if trial is None else (f"trial {trial}", end.get("trial") or end)
    state, reason = str(about.get("state") or ""), printable(str(about.get("reason") or ""))
    told = f"{what} is {state}" + (f": {reason}" if reason else "")
    if state == "waiting":
        raise KaosError("waiting", f"no lines yet, as {told}", hint="the same with -f waits for them")
    session.terminal.say(f"no lines{' yet' if state in ACTIVE else ''}; {told}")


def _tell_waiting(session: Session, line: Line) -> None:
    if session.terminal.json:
        session.terminal.answer_json_line(line)
    else:
        session.terminal.say(f"waiting: {printable(str(line['reason']))}")


def _print(session: Session, line: Line, several: bool) -> None:
    if session.terminal.json:
        session.terminal.answer_json_line(line)
    else:
        print(prefix(line, several) + printable(str(line["text"])), flush=True)


def _told(error: ConnectionLost | KaosError) -> KaosError:
    if isinstance(error, KaosError):
        return error
    return KaosError("connection_lost", f"the log broke off: {error}", hint="try the command again")
