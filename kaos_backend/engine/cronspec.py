"""Cron texts as Pachyderm reads them: five fields, `@daily`, `@every 90m`, `@never`, `TZ=…` before.

Source: the "standard" parser of github.com/robfig/cron, and Pachyderm's own `@never`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

Schedule = Callable[[datetime], datetime | None]
"""The first tick after a moment, both in UTC; None when there never is one."""

_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
# Other dialects have more, which Pachyderm would refuse: L, W, #, seconds.
_FIELD = re.compile(r"[0-9*/,?-]|[a-zA-Z]{3}")
_PARTS = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_S = 100 * 366 * 86400.0


def parse(text: str) -> Schedule:
    """The schedule of a cron text; ValueError, which says what is wrong with it, when it is none."""
    text = text.strip()
    zone: ZoneInfo | None = None
    if found := re.match(r"(?:CRON_)?TZ=(\S+)\s+", text):
        try:
            zone = ZoneInfo(found[1])
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"cron spec {text!r}: there is no time zone {found[1]!r}") from error
        text = text[found.end() :]
    if text == "@never":
        return lambda _moment: None
    if text.startswith("@every "):
        return _every(_go_duration(text.removeprefix("@every ").strip()))
    fields = _NAMED.get(text, text).split()
    if len(fields) != 5 or any(_FIELD.sub("", field) for field in fields):
        raise ValueError(
            f"cron spec {text!r} is none: five fields (minute hour day-of-month month day-of-week) are"
            " needed, or @hourly, @daily, @weekly, @monthly, @yearly, @every <duration>, @never"
        )
    return _fields(" ".join(fields).replace("?", "*"), zone)


def _fields(expression: str, zone: ZoneInfo | None) -> Schedule:
    def after(moment: datetime) -> datetime | None:
        found = next(CronSim(expression, moment.astimezone(zone or UTC)), None)
        return None if found is None else found.astimezone(UTC)

    try:
        after(datetime.now(UTC))
    except CronSimError as error:
        raise ValueError(f"cron spec {expression!r} is none: {error}") from None
    return after


def _every(seconds: float) -> Schedule:
    # Whole seconds, as ticks are named by them.
    step = timedelta(seconds=max(1, int(seconds)))
    return lambda moment: moment.replace(microsecond=0) + step


def _go_duration(text: str) -> float:
    """Seconds of a duration such as ``1h30m``."""
    if not re.fullmatch(rf"(?:{_PARTS.pattern})+", text):
        raise ValueError(f"cron spec '@every {text}' is none: write a duration like 90s, 15m or 1h30m")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PARTS.findall(text))
    if seconds > _LONGEST_S:
        raise ValueError(f"cron spec '@every {text}' is none: that is more than a century")
    return seconds
