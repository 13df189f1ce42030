"""What one trial is granted: cores, memory, GPUs, tries and time; and how many trials run at a time. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from kaos_formats.errors import InvalidResources
from kaos_formats.quantity import check_cpu, check_gpus, parse_memory

MAX_PARALLELISM = 1000
DEFAULT_CPU = 1.0
MAX_TRIES = 100
MAX_TIMEOUT_S = 366 * 86400.0


@dataclass(frozen=True, slots=True)
class Resources:
    """What one trial is granted: cores, bytes of memory (None: no limit), whole GPUs, how often it is run
    until it succeeds, and seconds for each time (None: no limit).
    """

    cpu: float = DEFAULT_CPU
    memory: int | None = None
    gpu: int = 0
    tries: int = 1
    timeout_s: float | None = None


def apply(
    current: Resources,
    cpu: float | None = None,
    memory: str | None = None,
    gpu: int | None = None,
    tries: int | None = None,
    timeout_s: float | None = None,
) -> Resources:
    """``current`` with what was given put in its place, ``memory`` being a Kubernetes quantity and a
    ``timeout_s`` of 0 lifting the limit; raises InvalidResources.
    """
    if cpu is not None:
        current = replace(current, cpu=check_cpu(cpu))
    if memory is not None:
        current = replace(current, memory=parse_memory(memory))
    if gpu is not None:
        current = replace(current, gpu=check_gpus(gpu))
    if tries is not None:
        current = replace(current, tries=check_tries(tries))
    if timeout_s is not None:
        current = replace(current, timeout_s=_check_timeout(timeout_s) or None)
    return current


def check_tries(value: int) -> int:
    """``value`` itself if a trial may be run so often; raises InvalidResources."""
    if not 1 <= value <= MAX_TRIES:
        raise InvalidResources(
            f"tries is {value}", hint=f"give a number from 1 (no second try) to {MAX_TRIES}", tries=value
        )
    return value


def _check_timeout(seconds: float) -> float:
    if not math.isfinite(seconds) or not 0 <= seconds <= MAX_TIMEOUT_S:
        raise InvalidResources(
            f"timeout_s is {seconds:g}",
            hint=f"give seconds up to {MAX_TIMEOUT_S:.0f}, or 0 for no limit",
            timeout_s=str(seconds),
        )
    # To the millisecond, which is as fine as anybody sleeps.
    return max(0.001, round(seconds, 3)) if seconds else 0.0


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
