"""Resources of one trial: cores, memory, GPUs and how many trials run at a time. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kaos_formats.errors import InvalidResources
from kaos_formats.quantity import check_cpu, check_gpus, parse_memory

MAX_PARALLELISM = 1000
DEFAULT_CPU = 1.0


@dataclass(frozen=True, slots=True)
class Resources:
    """What one trial is granted: cores, bytes of memory (None: no limit), whole GPUs."""

    cpu: float = DEFAULT_CPU
    memory: int | None = None
    gpu: int = 0


def apply(
    current: Resources, cpu: float | None = None, memory: str | None = None, gpu: int | None = None
) -> Resources:
    """``current`` with what was given put in its place, ``memory`` being a Kubernetes quantity; raises
    InvalidResources.
    """
    if cpu is not None:
        current = replace(current, cpu=check_cpu(cpu))
    if memory is not None:
        current = replace(current, memory=parse_memory(memory))
    if gpu is not None:
        current = replace(current, gpu=check_gpus(gpu))
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
