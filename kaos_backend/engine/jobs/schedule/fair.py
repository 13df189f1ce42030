"""Whose turn it is: the machine is shared equally between workspaces, and within each between its jobs. Pure.

Whoever has least of the machine is next, where a share is that of the resource of which somebody has most
(dominant resource fairness, Ghodsi et al., NSDI 2011); between equals, who has been without for longest.
A request that does not fit yet is not overtaken at its own cost: what it will need is set aside for it, and
others get only what is left beside that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from kaos_backend.engine.jobs.schedule.machine import (
    Allocatable,
    Allocation,
    Machine,
    Request,
    allocate,
    set_aside,
)

PATIENCE = 1000
"""After so many grants to others a request is next, whatever it and its workspace have."""


@dataclass(frozen=True, slots=True)
class Party:
    """A job, for which datums run."""

    workspace: str
    pipeline: str
    job: str

    def __str__(self) -> str:
        return f"job {self.job[:8]} of {self.workspace}/{self.pipeline}"


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """A request that waits; `granted` is how many grants there had been when it came."""

    party: Party
    request: Request
    granted: int


@dataclass(frozen=True, slots=True, eq=False)
class Holding:
    """A request that was granted."""

    party: Party
    allocation: Allocation


@dataclass(frozen=True, slots=True)
class Moment:
    """All that decides whose turn it is.

    `allocatable` is what is free, `ours` what would be if nothing of ours ran; `claims` in order of arrival,
    those of one job ask for the same. `since`: since when (on a clock that counts events) a workspace, or a
    job, has had no more than now. `granted`: how many grants there have been.
    """

    machine: Machine
    allocatable: Allocatable
    ours: Allocatable
    claims: Sequence[Claim]
    holdings: Sequence[Holding]
    since: Mapping[str | Party, int]
    granted: int


def choose(now: Moment) -> tuple[Claim, Allocation] | None:
    """Who is granted what next; None when nobody can be."""
    for claim, free in _in_turn(now):
        if (allocated := allocate(free, claim.request)) is not None:
            return claim, allocated[1]
    return None


def ahead(now: Moment) -> Claim | None:
    """For whom the machine is kept free now, if for anybody."""
    return next((claim for claim, free in _in_turn(now) if allocate(free, claim.request) is None), None)


def _in_turn(now: Moment) -> Iterator[tuple[Claim, Allocatable]]:
    """The next claim of each job, in turn, with what those before it leave of what is free."""
    free, ours = now.allocatable, now.ours
    for claim in in_turn(now):
        yield claim, free
        # For what can only run after those before it have ended nothing is kept: it would stand idle.
        if allocate(ours, claim.request) is not None:
            ours, free = set_aside(ours, claim.request), set_aside(free, claim.request)


def in_turn(now: Moment) -> list[Claim]:
    """The oldest claim of each job, that of whoever is next first."""
    held: dict[str | Party, list[Request]] = {}
    for holding in now.holdings:
        for who in (holding.party, holding.party.workspace):
            held.setdefault(who, []).append(holding.allocation.request)
    first: dict[Party, tuple[int, Claim]] = {}
    for number, claim in enumerate(now.claims):
        first.setdefault(claim.party, (number, claim))

    def rank(one: tuple[int, Claim]) -> tuple[float, ...]:
        number, claim = one
        if now.granted - claim.granted >= PATIENCE:
            return (0, number)
        parties = (claim.party.workspace, claim.party)
        standing = ((share(now.machine, held.get(who, ())), now.since.get(who, 0)) for who in parties)
        return (1, *chain.from_iterable(standing))

    return [claim for _, claim in sorted(first.values(), key=rank)]


def share(machine: Machine, held: Iterable[Request]) -> float:
    """The part of the machine that requests come to together: of the resource of which it is largest."""
    millicores = memory_bytes = gpus = 0
    for request in held:
        millicores += request.millicores
        memory_bytes += request.memory_bytes
        gpus += request.gpus
    return max(
        millicores / (1000 * machine.cpus),
        memory_bytes / max(1, machine.memory_bytes),
        gpus / max(1, machine.gpus),
    )
