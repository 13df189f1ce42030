"""Kubernetes resource quantities and protobuf JSON durations."""

from __future__ import annotations

import re
from decimal import Decimal

_SUFFIX = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{s: Decimal(1000) ** (i + 1) for i, s in enumerate("kMGTPE")},
    **{f"{s}i": Decimal(1024) ** (i + 1) for i, s in enumerate("KMGTPE")},
}
_QUANTITY = re.compile(r"^\+?(\d+(?:\.\d*)?|\.\d+)(?:([eE][+-]?\d{1,2})|([kKMGTPE]i?|m)?)$")
_DURATION = re.compile(r"^(-?\d{1,12})(\.\d{1,9})?s$")


def parse_bytes(text: str) -> int:
    """Bytes of a Kubernetes quantity such as `500M`, `4Gi`, `1e9`; ValueError when it is none.

    Source: kubernetes.io, "Resource Management for Pods", units. `K` is taken as `k`.
    """
    found = _QUANTITY.match(text.strip())
    if not found:
        raise ValueError(f"{text!r} is no quantity; write it like 500M, 4G or 4Gi")
    number, exponent, suffix = found.groups()
    suffix = "k" if suffix == "K" else (suffix or "")
    value = Decimal(number + (exponent or "")) * _SUFFIX[suffix]
    if value >= 1 << 63:
        raise ValueError(f"{text!r} is too large")
    return int(value.to_integral_value(rounding="ROUND_CEILING"))


def format_bytes(count: int) -> str:
    """A short text for people: `1.5 GiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.4g} {unit}"
        value /= 1024
    raise AssertionError


def parse_duration(text: str) -> float:
    """Seconds of a protobuf JSON duration (`"1.5s"`); ValueError when it is none."""
    found = _DURATION.match(text)
    if not found:
        raise ValueError(f'{text!r} is no duration; write seconds, like "90s" or "1.5s"')
    return float(found[1] + (found[2] or ""))
