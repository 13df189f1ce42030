"""Resources of one trial: Kubernetes quantities, cores, GPUs and how many trials run at a time. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from decimal import Decimal

from kaos_backend.errors import InvalidResources

MAX_PARALLELISM = 1000
DEFAULT_CPU = 1.0

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(m|k|Ki|[MGTPE]i?|[eE][+-]?[0-9]{1,2})?")
_FACTORS = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}
_MAX_BYTES = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Resources:
    """What one trial is granted: cores, bytes of memory (None: no limit), whole GPUs."""

    cpu: float = DEFAULT_CPU
    memory: int | None = None
    gpu: int = 0


def parse_quantity(text: str) -> int:
    """Bytes of a Kubernetes quantity such as ``4G``, ``512Mi``, ``1e9`` or ``1000000``; rounded up.

    Raises InvalidResources for anything else, and for less than one byte.
    Source: the grammar of ``resource.Quantity`` in Kubernetes' apimachinery.
    """
    match = _QUANTITY.fullmatch(text)
    if not match:
        raise InvalidResources(
            f"{text!r} is no memory quantity",
            hint="use a number of bytes or a Kubernetes quantity: 4G (10^9), 512Mi (2^20), 1.5Gi",
            memory=text,
        )
    suffix = match[2] or ""
    factor = (
        Decimal("1" + suffix)
        if suffix[:1] in ("e", "E") and len(suffix) > 1 and suffix not in _FACTORS
        else _FACTORS[suffix]
    )
    value = math.ceil(Decimal(match[1]) * factor)
    if not 1 <= value <= _MAX_BYTES:
        raise InvalidResources(
            f"the memory quantity {text!r} is {value} bytes", hint="give at least one byte", memory=text
        )
    return value


def apply(
    current: Resources, cpu: float | None = None, memory: str | None = None, gpu: int | None = None
) -> Resources:
    """``current`` with what was given put in its place, ``memory`` being a Kubernetes quantity; raises
    InvalidResources.
    """
    if cpu is not None:
        if not math.isfinite(cpu) or cpu <= 0:
            raise InvalidResources(
                f"cpu is {cpu}", hint="give a number of cores above 0, for example 0.5 or 2", cpu=str(cpu)
            )
        current = replace(current, cpu=float(cpu))
    if memory is not None:
        current = replace(current, memory=parse_quantity(memory))
    if gpu is not None:
        if gpu < 0:
            raise InvalidResources(f"gpu is {gpu}", hint="give a whole number of GPUs, 0 for none", gpu=gpu)
        current = replace(current, gpu=gpu)
    return current


def check_parallelism(value: int) -> int:
    """``value`` itself if so many trials may run at a time; raises InvalidResources."""
    if not 1 <= value <= MAX_PARALLELISM:
        raise InvalidResources(
            f"parallelism is {value}", hint=f"give a number from 1 to {MAX_PARALLELISM}", parallelism=value
        )
    return value


def default_parallelism(machine_cpus: float | None, cpu: float) -> int:
    """How many trials run at a time when nobody said: as many as the machine's cores hold, at least one."""
    if machine_cpus is None:
        return 1
    return max(1, min(MAX_PARALLELISM, int(machine_cpus // cpu)))
