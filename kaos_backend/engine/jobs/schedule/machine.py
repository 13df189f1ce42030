"""Who gets which cores, memory, GPUs and disk: pure arithmetic over immutable values.

Cpu is counted in millicores, memory and disk in bytes, GPUs by index. Whole cores are exclusive; fractions
share a core with other fractions as long as the sum on it stays within 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from kaos_backend.engine.jobs.spec.spec import Spec
from kaos_backend.engine.workers.port import Grant
from kaos_formats.quantity import MAX_BYTES, format_bytes, parse_bytes

CORE = 1000  # millicores


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to hand out: cores and GPUs by number, memory in bytes, and the size of the disk.

    `devices`: what runtimes call the GPUs, if not by their index.
    """

    cpus: int
    memory_bytes: int
    gpus: int
    disk_bytes: int = MAX_BYTES
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """What one datum asks for. `limit_bytes` is enforced on it; `memory_bytes` is only set aside."""

    millicores: int
    memory_bytes: int = 0
    gpus: int = 0
    limit_bytes: int | None = None
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Allocatable:
    """What is free now: millicores per core, bytes, GPU indexes."""

    cores: tuple[int, ...]
    memory_bytes: int
    gpus: frozenset[int]
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """One request granted: what to give back, and what the worker is told."""

    request: Request
    shares: tuple[tuple[int, int], ...]  # (core, millicores)
    gpus: tuple[int, ...]

    def grant(self, machine: Machine) -> Grant:
        """It as the worker of `machine`, from which it is, is told."""
        return Grant(
            cpu=self.request.millicores / CORE,
            cores=tuple(sorted(core for core, _ in self.shares)),
            memory_bytes=self.request.limit_bytes,
            gpus=tuple(machine.devices[gpu] if machine.devices else str(gpu) for gpu in self.gpus),
        )


def request_of(spec: Spec) -> Request:
    """The share one datum of a validated pipeline needs: limits first, then requests, else one core."""
    limits, requests = spec.resource_limits, spec.resource_requests
    cpu = (limits.cpu if limits else 0.0) or (requests.cpu if requests else 0.0) or 1.0
    limit = parse_bytes(limits.memory) if limits and limits.memory else None
    asked = parse_bytes(requests.memory) if requests and requests.memory else 0
    disk = next((parse_bytes(r.disk) for r in (requests, limits) if r and r.disk), 0)
    gpus = next((r.gpu.number for r in (limits, requests) if r and r.gpu and r.gpu.number), 0)
    return Request(
        # Below a millicore nothing could be told apart; never grant less than asked.
        millicores=max(1, math.ceil(round(cpu * CORE, 6))),
        memory_bytes=limit if limit is not None else asked,
        gpus=gpus,
        limit_bytes=limit,
        disk_bytes=disk,
    )


def why_never(machine: Machine, request: Request) -> str:
    """Why this machine can never run `request`, as a sentence without subject; empty when it can."""
    if math.ceil(request.millicores / CORE) > machine.cpus:
        return f"asks for {request.millicores / CORE:g} cpu but this machine has {machine.cpus}"
    if request.memory_bytes > machine.memory_bytes:
        return (
            f"asks for {format_bytes(request.memory_bytes)} of memory"
            f" but this machine has {format_bytes(machine.memory_bytes)}"
        )
    if request.gpus > machine.gpus:
        return f"asks for {request.gpus} gpu but this machine has {machine.gpus}"
    if request.disk_bytes > machine.disk_bytes:
        return (
            f"asks for {format_bytes(request.disk_bytes)} of disk"
            f" but that of KAOS_HOME has {format_bytes(machine.disk_bytes)}"
        )
    return ""


def allocatable_of(machine: Machine) -> Allocatable:
    """Everything free."""
    return Allocatable(
        (CORE,) * machine.cpus, machine.memory_bytes, frozenset(range(machine.gpus)), machine.disk_bytes
    )


def allocate(allocatable: Allocatable, request: Request) -> tuple[Allocatable, Allocation] | None:
    """`request` taken out of `allocatable`, or None while it does not fit."""
    shares = _cores_for(allocatable, request)
    if shares is None or _short_of_the_rest(allocatable, request):
        return None
    allocation = Allocation(request, shares, tuple(sorted(allocatable.gpus)[: request.gpus]))
    return take(allocatable, allocation), allocation


def _short_of_the_rest(allocatable: Allocatable, request: Request) -> bool:
    return (
        request.memory_bytes > allocatable.memory_bytes
        or request.gpus > len(allocatable.gpus)
        or request.disk_bytes > allocatable.disk_bytes
    )


def _cores_for(allocatable: Allocatable, request: Request) -> tuple[tuple[int, int], ...] | None:
    """(core, millicores) of the cores that a request would get, None while there are too few."""
    whole, part = divmod(request.millicores, CORE)
    shares: list[tuple[int, int]] = []
    if part:
        # The fullest core that still has room: keeps whole cores whole.
        fitting = [(free, core) for core, free in enumerate(allocatable.cores) if free >= part]
        if not fitting:
            return None
        shares.append((min(fitting)[1], part))
    shared = {core for core, _ in shares}
    idle = [core for core, free in enumerate(allocatable.cores) if free == CORE and core not in shared]
    if len(idle) < whole:
        return None
    return (*shares, *((core, CORE) for core in idle[:whole]))


def set_aside(allocatable: Allocatable, request: Request) -> Allocatable:
    """What others may have meanwhile, so that `request` comes to its share as soon as without them.

    Of what there is enough of, all but that; of what there is too little of, nothing.
    """
    shares = _cores_for(allocatable, request)
    taken = dict(shares) if shares is not None else dict(enumerate(allocatable.cores))
    return Allocatable(
        cores=tuple(free - taken.get(core, 0) for core, free in enumerate(allocatable.cores)),
        memory_bytes=max(0, allocatable.memory_bytes - request.memory_bytes),
        gpus=frozenset(sorted(allocatable.gpus)[request.gpus :]),
        disk_bytes=max(0, allocatable.disk_bytes - request.disk_bytes),
    )


def shortage(machine: Machine, allocatable: Allocatable, request: Request, taken_gpus: int = 0) -> str:
    """What of `request` is not free now, with how much is; "" when each part of it is.

    `taken_gpus`: those that programs of others are on, which are not free.
    """
    short = []
    if _cores_for(allocatable, request) is None:
        free = sum(allocatable.cores) / CORE
        short.append(f"{request.millicores / CORE:g} cpu ({free:g} of {machine.cpus} free)")
    if request.memory_bytes > allocatable.memory_bytes:
        free_bytes = format_bytes(allocatable.memory_bytes)
        total = format_bytes(machine.memory_bytes)
        short.append(f"{format_bytes(request.memory_bytes)} of memory ({free_bytes} of {total} free)")
    if request.gpus > len(allocatable.gpus):
        others = f", {taken_gpus} taken by other programs" if taken_gpus else ""
        short.append(f"{request.gpus} gpu ({len(allocatable.gpus)} of {machine.gpus} free{others})")
    if request.disk_bytes > allocatable.disk_bytes:
        short.append(
            f"{format_bytes(request.disk_bytes)} of disk ({format_bytes(allocatable.disk_bytes)} free)"
        )
    return ", ".join(short)


def take(allocatable: Allocatable, allocation: Allocation) -> Allocatable:
    """`allocatable` without `allocation`, which was made of no more than it."""
    taken = dict(allocation.shares)
    return Allocatable(
        cores=tuple(free - taken.get(core, 0) for core, free in enumerate(allocatable.cores)),
        memory_bytes=allocatable.memory_bytes - allocation.request.memory_bytes,
        gpus=allocatable.gpus - set(allocation.gpus),
        disk_bytes=allocatable.disk_bytes - allocation.request.disk_bytes,
    )


def release(allocatable: Allocatable, allocation: Allocation) -> Allocatable:
    """`allocatable` with `allocation` given back."""
    back = dict(allocation.shares)
    return replace(
        allocatable,
        cores=tuple(free + back.get(core, 0) for core, free in enumerate(allocatable.cores)),
        memory_bytes=allocatable.memory_bytes + allocation.request.memory_bytes,
        gpus=allocatable.gpus | set(allocation.gpus),
        disk_bytes=allocatable.disk_bytes + allocation.request.disk_bytes,
    )
