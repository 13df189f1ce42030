"""Numbers and times as people read them. Pure; the clock is passed in."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime


def size(count: int) -> str:
    """Bytes with a decimal unit, three significant digits: ``999 B``, ``1.23 MB``."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        value /= 1000
        if value < 999.5 or unit == "PB":
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{digits}f} {unit}"
    raise AssertionError("unreachable")


def files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count:,} lines"


def objects(count: int) -> str:
    return "1 object" if count == 1 else f"{count:,} objects"


def jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count:,} jobs"


def trials(count: int) -> str:
    return "1 trial" if count == 1 else f"{count:,} trials"


def duration(seconds: float | None) -> str:
    """``0.42s``, ``12s``, ``3m05s``, ``2h07m``, ``3d04h``; "" for None."""
    if seconds is None:
        return ""
    if seconds < 9.95:
        return f"{seconds:.1f}s" if seconds >= 0.995 else f"{seconds:.2f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


_DURATION = re.compile(r"(?:[0-9]{1,6}(?:\.[0-9]{1,6})?[dhms])+")
_UNITS_S = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def parse_duration(given: str) -> float:
    """Seconds of ``90``, ``90s``, ``10m``, ``1h30m``, ``2d``; raises ValueError for the rest and for 0."""
    spelled = given if given[-1:].isalpha() else given + "s"
    if not _DURATION.fullmatch(spelled):
        raise ValueError(f"{given!r} is no time: for example 90s, 10m or 1h30m")
    parts = re.findall(r"([0-9.]+)([dhms])", spelled)
    seconds = sum(float(amount) * _UNITS_S[unit] for amount, unit in parts)
    if not seconds:
        raise ValueError(f"{given!r} is no time at all: it must be more than 0")
    return seconds


def age(created: str | None, now: datetime) -> str:
    """How long ago an RFC 3339 moment was, in its largest unit: ``5s``, ``12m``, ``3h``, ``8d``."""
    moment = parse_time(created)
    if moment is None:
        return ""
    seconds = max(0, int((now - moment).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def parse_time(text: str | None) -> datetime | None:
    """A moment from RFC 3339; None for None and for what is no time."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def number(value: object) -> str:
    """A metric or parameter in a cell: floats with up to 6 significant digits, the rest as in JSON."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: ""}[value]
    if isinstance(value, float):
        if math.isfinite(value) and value == int(value) and abs(value) < 1e6:
            return f"{value:.1f}"
        return f"{value:.6g}"
    return str(value)


def metric(value: object) -> str:
    """As ``number``; what is not finite comes as protobuf's words for it."""
    return number(float(value)) if isinstance(value, str) else number(value)


def printable(text: str) -> str:
    """``text`` without control characters: a log or a file name must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in text)


_CONTROLS = bytes(code for code in range(32) if code not in b"\t\n") + b"\x7f"
# From so many different characters on it takes longer to replace them one by one.
_MANY = 30
_HARMLESS = bytes(code for code in range(256) if code not in _CONTROLS)


def printable_lines(text: bytes) -> bytes:
    """``printable`` of each line of a UTF-8 text, at a speed for gigabytes of them."""
    for code in set(text.translate(None, _HARMLESS)):
        text = text.replace(bytes((code,)), b"\\x%02x" % code)
    if text.isascii():
        return text
    decoded = text.decode(errors="replace")
    if decoded.replace("\n", "").replace("\t", "").isprintable():
        return text
    shown = {c: f"\\x{ord(c):02x}" for c in set(decoded) if not c.isprintable() and c not in "\t\n"}
    if len(shown) > _MANY:
        return decoded.translate({ord(c): told for c, told in shown.items()}).encode()
    for c, told in shown.items():
        decoded = decoded.replace(c, told)
    return decoded.encode()


def arguments(given: Mapping[str, str]) -> str:
    """Build arguments in a line: ``CUDA=12, TORCH=2.1``."""
    return ", ".join(f"{name}={printable(value)}" for name, value in given.items())
