"""Amounts as Kubernetes and protobuf write them: cores, bytes and durations. One grammar for all programs."""

from __future__ import annotations

import math
import re
from decimal import Decimal

from kaos_formats.errors import InvalidResources

MAX_BYTES = (1 << 63) - 1
MAX_LENGTH = 64

_FACTORS = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    "K": Decimal(1000),  # not Kubernetes', but there are pipelines that say it
    **{suffix: Decimal(1000) ** (i + 1) for i, suffix in enumerate("kMGTPE")},
    **{f"{suffix}i": Decimal(1024) ** (i + 1) for i, suffix in enumerate("KMGTPE")},
}
_QUANTITY = re.compile(r"\+?([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:([eE][+-]?[0-9]{1,2})|(m|k|[KMGTPE]i?)?)")
_DURATION = re.compile(r"(-?[0-9]{1,12})(\.[0-9]{1,9})?s")


def parse_bytes(text: str) -> int:
    """Bytes of a Kubernetes quantity such as ``4G``, ``512Mi``, ``1e9`` or ``1000000``; rounded up.

    Raises InvalidResources for anything else and for more than 2^63 - 1.
    Source: the grammar of ``resource.Quantity`` in Kubernetes' apimachinery, without negative amounts and the
    suffixes below ``m``.
    """
    match = _QUANTITY.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if match is None:
        raise InvalidResources(
            f"{text[:MAX_LENGTH]!r} is no quantity of memory",
            hint="use a number of bytes or a Kubernetes quantity: 4G (10^9), 512Mi (2^20), 1.5Gi",
            memory=text[:MAX_LENGTH],
        )
    number, exponent, suffix = match.groups()
    value = math.ceil(Decimal(number + (exponent or "")) * _FACTORS[suffix or ""])
    if value > MAX_BYTES:
        raise InvalidResources(f"{text!r} is too large: at most {MAX_BYTES} bytes", memory=text)
    return value


def parse_memory(text: str) -> int:
    """As ``parse_bytes``, for the memory of something that runs: at least one byte. Raises
    InvalidResources.
    """
    value = parse_bytes(text)
    if value < 1:
        raise InvalidResources(f"the memory {text!r} is 0 bytes", hint="give at least one byte", memory=text)
    return value


def check_cpu(cores: float) -> float:
    """``cores`` itself if it is a number above 0; raises InvalidResources."""
    if not math.isfinite(cores) or cores <= 0:
        raise InvalidResources(
            f"cpu is {cores:g}", hint="give a number of cores above 0, for example 0.5 or 2", cpu=str(cores)
        )
    return float(cores)


def check_gpus(count: int) -> int:
    """``count`` itself unless it is negative; raises InvalidResources."""
    if count < 0:
        raise InvalidResources(f"gpu is {count}", hint="give a whole number of GPUs, 0 for none", gpu=count)
    return count


def format_bytes(count: int) -> str:
    """A short text for people: ``1.5 GiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.4g} {unit}"
        value /= 1024
    raise AssertionError


def parse_duration(text: str) -> float:
    """Seconds of a protobuf JSON duration (``"1.5s"``); ValueError when it is none."""
    found = _DURATION.fullmatch(text)
    if not found:
        raise ValueError(f'{text!r} is no duration; write seconds, like "90s" or "1.5s"')
    return float(found[1] + (found[2] or ""))
