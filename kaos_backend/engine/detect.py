"""What the machine has, and what other programs leave of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from kaos_backend.engine.errors import InvalidArgument
from kaos_backend.engine.gpus import Inventory, find
from kaos_backend.engine.jobs.run.inputs import share_of_disk
from kaos_backend.engine.jobs.schedule.machine import Machine
from kaos_backend.engine.jobs.schedule.queue import Surroundings
from kaos_backend.engine.jobs.upkeep import SHARE
from kaos_formats.quantity import parse_bytes

_PERCENT = 100


def upkeep_share(env: Mapping[str, str]) -> float:
    """How much of a core giving space back by itself may take: KAOS_UPKEEP_SHARE, from 0 (never) to 1.

    Raises InvalidArgument naming it.
    """
    text = env.get("KAOS_UPKEEP_SHARE", "")
    try:
        share = float(text) if text else SHARE
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InvalidArgument(f"KAOS_UPKEEP_SHARE is {text!r}: must be a number from 0 (never) to 1 (a core)")
    return share


def detect_machine(env: Mapping[str, str], data_dir: Path) -> tuple[Machine, Inventory]:
    """What this process may use, or what KAOS_ENGINE_CPUS, KAOS_ENGINE_MEMORY and KAOS_ENGINE_GPUS say.

    The disk is that of `data_dir`, or of what there is of its path. Raises InvalidArgument naming the
    variable that makes no sense.
    """

    def number(name: str, found: int, least: int) -> int:
        text = env.get(name, "")
        if not text:
            return found
        if not text.isdigit() or int(text) < least:
            raise InvalidArgument(f"{name} is {text!r}: must be a whole number of at least {least}")
        return int(text)

    memory = _memory_bytes()
    if text := env.get("KAOS_ENGINE_MEMORY", ""):
        try:
            memory = parse_bytes(text)
        except ValueError as e:
            raise InvalidArgument(f"KAOS_ENGINE_MEMORY: {e}") from None
    gpus = find(env)
    gpus = gpus.first(number("KAOS_ENGINE_GPUS", len(gpus.gpus), 0))
    there = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    machine = Machine(
        cpus=number("KAOS_ENGINE_CPUS", _cpus(), 1),
        memory_bytes=memory,
        gpus=len(gpus.gpus),
        disk_bytes=shutil.disk_usage(there).total,
        devices=tuple(gpu.device for gpu in gpus.gpus),
    )
    return machine, gpus


def inputs_limit(env: Mapping[str, str], disk_bytes: int) -> int:
    """How many bytes may stay laid out of inputs that no job uses: KAOS_ENGINE_INPUTS, an amount ("20Gi") or
    a share of the disk ("10%"); without it a fifth of the disk.

    Raises InvalidArgument where that makes no sense.
    """
    text = env.get("KAOS_ENGINE_INPUTS", "").strip()
    if not text:
        return share_of_disk(disk_bytes)
    if text.endswith("%"):
        number = text[:-1].strip()
        if not number.isdecimal() or int(number) > _PERCENT:
            raise InvalidArgument(f"KAOS_ENGINE_INPUTS is {text!r}: a share must be between 0% and 100%")
        return disk_bytes * int(number) // _PERCENT
    try:
        return parse_bytes(text)
    except ValueError:
        raise InvalidArgument(
            f"KAOS_ENGINE_INPUTS is {text!r}: must be an amount (20Gi) or a share of the disk (10%)"
        ) from None


def outside(gpus: Inventory, data_dir: Path) -> Callable[[frozenset[int]], Surroundings]:
    """What tells of `gpus` and of the disk of `data_dir` what others leave, given the GPUs in use by us."""

    def look(ours: frozenset[int]) -> Surroundings:
        try:
            free = shutil.disk_usage(data_dir).free
        except OSError:
            free = None
        return Surroundings(gpus.others(ours), free)

    return look


def _cpus() -> int:
    """Cores this process may run on, less if a cgroup (a container) allows less; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return max(1, cores)


def _memory_bytes() -> int:
    total = int(psutil.virtual_memory().total)
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return total
