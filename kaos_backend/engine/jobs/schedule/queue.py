"""Who waits for the machine, who has which part of it, and who is next. No threads, no clock."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kaos_backend.engine.jobs.schedule import fair
from kaos_backend.engine.jobs.schedule.fair import Claim, Holding, Moment, Party
from kaos_backend.engine.jobs.schedule.machine import (
    Allocatable,
    Machine,
    Request,
    allocatable_of,
    release,
    shortage,
    take,
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What others leave of the machine: the GPUs that their programs are on, with who that is in words; the
    room on the disk in bytes (None: not known, and not counted)."""

    taken_gpus: Mapping[int, str] = field(default_factory=dict)
    free_disk_bytes: int | None = None


EVERYWHERE = ""
"""Among paused workspaces: all there are and will be."""


@dataclass(slots=True)
class Queue:
    """`enter` or `leave`, then `admit` whoever can be.

    `paused`: the workspaces in which nothing new starts; `EVERYWHERE` stands for all of them.
    """

    machine: Machine
    surroundings: Surroundings = field(default_factory=Surroundings)
    paused: frozenset[str] = frozenset()
    claims: list[Claim] = field(default_factory=list)
    holdings: list[Holding] = field(default_factory=list)
    _since: dict[str | Party, int] = field(default_factory=dict)
    _events: itertools.count[int] = field(default_factory=itertools.count)
    _granted: int = 0
    _allocatable: Allocatable = field(init=False)

    def __post_init__(self) -> None:
        self._allocatable = allocatable_of(self.machine)

    @property
    def allocatable(self) -> Allocatable:
        """What is free, and not in use by others."""
        return self._beside_others(self._allocatable)

    def enter(self, party: Party, request: Request) -> Claim:
        """Wait behind those who are there."""
        for who in (party, party.workspace):
            self._since.setdefault(who, next(self._events))
        claim = Claim(party, request, self._granted)
        self.claims.append(claim)
        return claim

    def leave(self, claim: Claim) -> None:
        """Wait no more."""
        self.claims.remove(claim)
        self._forget(claim.party)

    def admit(self) -> tuple[Claim, Holding] | None:
        """Grant the next request that can be; its claim is gone then."""
        found = fair.choose(self._now())
        if found is None:
            return None
        claim, allocation = found
        self._allocatable = take(self._allocatable, allocation)
        holding = Holding(claim.party, allocation)
        self.holdings.append(holding)
        self.claims.remove(claim)
        self._granted += 1
        return claim, holding

    def release(self, holding: Holding) -> None:
        """Give a share back."""
        self.holdings.remove(holding)
        self._allocatable = release(self._allocatable, holding.allocation)
        for who in (holding.party, holding.party.workspace):
            self._since[who] = next(self._events)
        self._forget(holding.party)

    def why(self, party: Party, request: Request) -> str:
        """What a request waits for now, and which other jobs have it: "1 cpu (0 of 2 free), …"."""
        if self._is_paused(party):
            return f"a resume: workspace {party.workspace} is paused"
        short = shortage(self.machine, self.allocatable, request, len(self.surroundings.taken_gpus))
        if short:
            others = sorted({str(one.party) for one in self.holdings} - {str(party)})
            return f"{short}, in use by {', '.join(others)}" if others else short
        first = fair.ahead(self._now())
        if first is None or first.party == party:
            return "its turn on this machine"
        needs = shortage(self.machine, self.allocatable, first.request, len(self.surroundings.taken_gpus))
        return f"its turn, after {first.party}" + (f", which waits for {needs}" if needs else "")

    def _is_paused(self, party: Party) -> bool:
        return not self.paused.isdisjoint((party.workspace, EVERYWHERE))

    def _now(self) -> Moment:
        return Moment(
            machine=self.machine,
            allocatable=self.allocatable,
            ours=self._beside_others(allocatable_of(self.machine)),
            claims=[claim for claim in self.claims if not self._is_paused(claim.party)],
            holdings=self.holdings,
            since=self._since,
            granted=self._granted,
        )

    def _beside_others(self, allocatable: Allocatable) -> Allocatable:
        around = self.surroundings
        disk = allocatable.disk_bytes
        if around.free_disk_bytes is not None:
            # What is granted may not be written yet.
            granted = sum(one.allocation.request.disk_bytes for one in self.holdings)
            disk = min(disk, max(0, around.free_disk_bytes - granted))
        return replace(allocatable, gpus=allocatable.gpus - set(around.taken_gpus), disk_bytes=disk)

    def _forget(self, party: Party) -> None:
        there = [claim.party for claim in self.claims] + [one.party for one in self.holdings]
        if party not in there:
            self._since.pop(party, None)
        if all(one.workspace != party.workspace for one in there):
            self._since.pop(party.workspace, None)
