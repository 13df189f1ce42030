"""``kaos train logs``: the lines of the stages and their trials, prefixed where they are of several."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any

from kaos_cli.errors import OK, ConnectionLost, KaosError
from kaos_cli.refs import LAST
from kaos_cli.session import Session
from kaos_cli.text import printable, printable_lines
from kaos_cli.watch import ACTIVE, PASSING, PATIENCE_S, PAUSE_MAX_S, attached, exit_code
from kaos_formats import loglines
from kaos_formats.loglines import Line

Item = dict[str, Any]


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

    def sifted(self, items: Iterable[Item]) -> Iterator[Item]:
        """The blocks with what is wanted of them, the last ``tail`` lines of each trial and stage; what is no
        block passes.
        """
        if not self.sifts:
            yield from items
            return
        wanted = self._filter()
        for (stage, _), group in groupby(items, key=_whose):
            if stage is None:
                yield from group
                continue
            found = (item | {"data": loglines.only(item["data"], wanted)} for item in group)
            yield from found if self.tail is None else _last_of(found, self.tail)

    def _filter(self) -> Callable[[Line], bool]:
        since_us = 0 if self.since is None else loglines.microseconds(self.since)
        found = (lambda _: True) if self.pattern is None else self.pattern.search
        return lambda line: line.ts_us >= since_us and bool(found(line.text))


def _whose(item: Item) -> tuple[str | None, str | None]:
    return item.get("stage"), item.get("model")


def _last_of(items: Iterable[Item], count: int) -> Iterator[Item]:
    kept: deque[bytes] = deque(maxlen=count)
    for item in items:
        kept.extend(loglines.split(item["data"]))
        last = item
    yield last | {"data": b"".join(kept)}


def prefix(item: Item, several: bool) -> str:
    if not several:
        return ""
    return f"{item['stage']:<7} | " if item.get("trial") is None else f"trial {item['trial']} | "


class Reader:
    """What of each trial and stage was shown already, for a stream that broke off and is read again."""

    def __init__(self) -> None:
        self._to: dict[object, int] = {}
        self._last_us: dict[object, int] = {}

    def unseen(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items without what was shown."""
        for item in items:
            yield item | {"data": self._rest(item)} if "data" in item else item

    def _rest(self, item: Item) -> bytes:
        key, data = _whose(item), bytes(item["data"])
        if item["to"] is None:
            # Another pachd than kaos's own tells no more than when it was said.
            last_us = self._last_us.get(key, 0)
            return loglines.only(data, lambda line: not line.ts_us or line.ts_us > last_us)
        return data[max(0, self._to.get(key, 0) - item["at"]) :]

    def shown(self, item: Item) -> None:
        key = _whose(item)
        if item["to"] is not None:
            self._to[key] = item["to"]
        elif lines := list(loglines.lines(item["data"])):
            self._last_us[key] = lines[-1].ts_us


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
    job = session.client.job(ws, ref, limit=1)
    failed = sorted(number for kind in job["failures"] for number in kind["trials"])
    if not failed:
        session.terminal.say(f"no trial of job {job['id'][:8]} has failed")
    for number in failed:
        _read(session, ws, job["id"], replace(query, trial=number), several=True)
    return OK


def _read(session: Session, ws: str, ref: str, query: Query, several: bool = False) -> int:
    several = several or (query.trial is None and query.stage is None)
    reader, resumed, printed = Reader(), False, False
    last_alive = time.monotonic()
    while True:
        try:
            # The tail was shown; what came since is all of it wanted.
            tail = None if resumed or query.sifts else query.tail
            read = session.client.logs(ws, ref, query.trial, query.stage, query.follow, tail)
            for item in query.sifted(reader.unseen(read) if resumed else read):
                if item.get("end"):
                    end = item
                    break
                if item.get("waiting"):
                    _tell_waiting(session, item)
                elif item["data"]:
                    _print(session, item, several, now=query.follow)
                    reader.shown(item)
                    printed = True
                # Whoever reads what is printed may have taken long.
                last_alive = time.monotonic()
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


def _tell_nothing(session: Session, end: Item, query: Query) -> None:
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


def _tell_waiting(session: Session, item: Item) -> None:
    if session.terminal.json:
        session.terminal.answer_json_line(item)
    else:
        session.terminal.say(f"waiting: {printable(str(item['reason']))}")


def _print(session: Session, item: Item, several: bool, now: bool) -> None:
    if not session.terminal.json:
        texts = loglines.texts(item["data"], prefix(item, several).encode())
        session.terminal.answer_lines(printable_lines(texts), now=now)
        return
    of = {name: item[name] for name in ("stage", "trial", "model")}
    session.terminal.answer_json_lines(
        {**of, "ts": loglines.time_of(line), "user": line.user, "text": line.text}
        for line in loglines.lines(item["data"])
    )


def _told(error: ConnectionLost | KaosError) -> KaosError:
    if isinstance(error, KaosError):
        return error
    return KaosError("connection_lost", f"the log broke off: {error}", hint="try the command again")
