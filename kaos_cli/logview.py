"""``kaos train logs``: the lines of the stages and their trials, prefixed where they are of several."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any

from kaos_cli.client import ConnectionLost
from kaos_cli.errors import OK, KaosError
from kaos_cli.refs import LAST
from kaos_cli.session import Session
from kaos_cli.text import parse_time, printable
from kaos_cli.watch import ACTIVE, PASSING, PATIENCE_S, PAUSE_MAX_S, attached, exit_code

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """What of a log is asked for; ``since`` and ``pattern`` are seen to here, the rest by the backend."""

    trial: int | None = None
    stage: str | None = None
    follow: bool = False
    tail: int | None = None
    since: datetime | None = None
    pattern: re.Pattern[str] | None = None

    @property
    def sifts(self) -> bool:
        return self.since is not None or self.pattern is not None

    def sifted(self, lines: Iterable[Line]) -> Iterator[Line]:
        """Those of ``lines`` that are wanted, the last ``tail`` of each trial and stage; what is no line of a
        log passes.
        """
        if not self.sifts:
            yield from lines
            return
        for _, group in groupby(lines, key=lambda line: (line.get("stage"), line.get("model"))):
            found = (line for line in group if "text" not in line or self._wants(line))
            yield from found if self.tail is None else deque(found, maxlen=self.tail)

    def _wants(self, line: Line) -> bool:
        if self.since is not None:
            said = parse_time(line.get("ts"))
            if said is None or said < self.since:
                return False
        return self.pattern is None or self.pattern.search(str(line["text"])) is not None


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


def logs(session: Session, ws: str, ref: str, query: Query, timeout_s: float | None = None) -> int:
    """Print the logs; the exit code: with ``follow`` that of the job when it ends.

    A follow that is interrupted or takes longer than ``timeout_s`` ends as ``watch.attached`` says.
    """
    if not query.follow:
        return _read(session, ws, ref, query)
    if ref == LAST and (jobs := session.client.jobs(ws, limit=1)):
        # What is followed stays this job, also when another one is started meanwhile.
        ref = jobs[0]["id"]
    with attached(session, ws, [ref], "logs -f", timeout_s):
        return _read(session, ws, ref, query)


def logs_of_failed(session: Session, ws: str, ref: str, query: Query) -> int:
    """Print the logs of the trials that failed, one after another; the exit code."""
    job = session.client.job(ws, ref)
    failed = sorted(trial["trial"] for trial in job["trials"] if trial["state"] == "failed")
    if not failed:
        session.terminal.say(f"no trial of job {job['id'][:8]} has failed")
    for number in failed:
        _read(session, ws, job["id"], replace(query, trial=number), several=True)
    return OK


def _read(session: Session, ws: str, ref: str, query: Query, several: bool = False) -> int:
    several = several or (query.trial is None and query.stage is None)
    reader, resumed = Reader(), False
    last_alive = time.monotonic()
    printed = False
    while True:
        try:
            # The tail was shown; what came since is all of it wanted.
            tail = None if resumed or query.sifts else query.tail
            read = session.client.logs(ws, ref, query.trial, query.stage, query.follow, tail)
            for line in query.sifted(read):
                last_alive = time.monotonic()
                if line.get("end"):
                    end = line
                    break
                if line.get("waiting"):
                    _tell_waiting(session, line)
                elif reader.is_new(line, resumed):
                    _print(session, line, several, flush=query.follow)
                    printed = True
            break
        except (ConnectionLost, KaosError) as error:
            passing = isinstance(error, ConnectionLost) or error.code in PASSING
            if not passing or not (query.follow or printed) or time.monotonic() - last_alive > PATIENCE_S:
                raise _told(error) from error
            resumed = True
            time.sleep(PAUSE_MAX_S)
    if not printed:
        _tell_nothing(session, end, query)
    return exit_code(end["state"]) if query.follow else OK


def _tell_nothing(session: Session, end: Line, query: Query) -> None:
    """Say why a log has no lines. Raises KaosError (waiting) when nothing runs yet that could have any."""
    what, about = "the job", end
    if query.trial is not None:
        what, about = f"trial {query.trial}", end.get("trial") or end
    state, reason = str(about.get("state") or ""), printable(str(about.get("reason") or ""))
    told = f"{what} is {state}" + (f": {reason}" if reason else "")
    if state == "waiting":
        raise KaosError("waiting", f"no lines yet, as {told}", hint="the same with -f waits for them")
    if query.sifts:
        session.terminal.say(f"no such lines; {told}")
        return
    session.terminal.say(f"no lines{' yet' if state in ACTIVE else ''}; {told}")


def _tell_waiting(session: Session, line: Line) -> None:
    if session.terminal.json:
        session.terminal.answer_json_line(line)
    else:
        session.terminal.say(f"waiting: {printable(str(line['reason']))}")


def _print(session: Session, line: Line, several: bool, flush: bool) -> None:
    if session.terminal.json:
        session.terminal.answer_json_line(line)
    else:
        print(prefix(line, several) + printable(str(line["text"])), flush=flush)


def _told(error: ConnectionLost | KaosError) -> KaosError:
    if isinstance(error, KaosError):
        return error
    return KaosError("connection_lost", f"the log broke off: {error}", hint="try the command again")
