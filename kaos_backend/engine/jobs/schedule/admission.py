"""The door to the machine: what runs at once never exceeds it; the rest waits for its turn."""

from __future__ import annotations

import threading
from collections.abc import Callable

from kaos_backend.engine.jobs.schedule.fair import Claim, Holding, Party
from kaos_backend.engine.jobs.schedule.machine import Machine, Request, allocatable_of, allocate
from kaos_backend.engine.jobs.schedule.queue import Queue, Surroundings

# How often it is looked what other programs leave, while somebody waits for something of it.
_LOOK_S = 1.0


class Admission:
    """A `Queue` that threads wait in. `look` tells what other programs leave; it is told the GPUs in use."""

    def __init__(
        self, machine: Machine, look: Callable[[frozenset[int]], Surroundings] = lambda _: Surroundings()
    ) -> None:
        self.machine = machine
        self._look = look
        self._queue = Queue(machine)
        self._admitted: dict[Claim, Holding] = {}
        self._changed = threading.Condition()

    def acquire(self, request: Request, given_up: Callable[[], bool], party: Party) -> Holding | None:
        """Wait for a share. None once `given_up()` is true (call `nudge` when that changes)."""
        # Of what others leave nobody tells.
        pause_s = _LOOK_S if _shared(request) else None
        with self._changed:
            claim = self._queue.enter(party, request)
            while not given_up():
                self._admit()
                if claim in self._admitted:
                    return self._admitted.pop(claim)
                self._changed.wait(pause_s)
            # It may have come through at this very moment.
            if (holding := self._admitted.pop(claim, None)) is not None:
                self._queue.release(holding)
            else:
                self._queue.leave(claim)
            self._admit()
            return None

    def release(self, holding: Holding) -> None:
        """Give a share back."""
        with self._changed:
            self._queue.release(holding)
            self._admit()

    def pause(self, workspaces: frozenset[str]) -> None:
        """Let nothing new start in these, and in the others what waits there; see `Queue.paused`."""
        with self._changed:
            if workspaces != self._queue.paused:
                self._queue.paused = workspaces
                self._admit()

    def why(self, request: Request, party: Party) -> str:
        """What `request` waits for now, and which other jobs have it: "1 cpu (0 of 2 free), …"."""
        with self._changed:
            return self._queue.why(party, request)

    def holdings(self) -> list[Holding]:
        """Who has what."""
        with self._changed:
            return list(self._queue.holdings)

    def waiting(self) -> list[Party]:
        """The jobs of the requests that wait, in order of arrival."""
        with self._changed:
            return [claim.party for claim in self._queue.claims]

    def nudge(self) -> None:
        """Make everyone who waits look again whether to give up."""
        with self._changed:
            self._changed.notify_all()

    def _admit(self) -> None:
        if any(_shared(claim.request) for claim in self._queue.claims):
            held = {gpu for one in self._queue.holdings for gpu in one.allocation.gpus}
            self._queue.surroundings = self._look(frozenset(held))
        admitted = False
        while (found := self._queue.admit()) is not None:
            claim, holding = found
            self._admitted[claim] = holding
            admitted = True
        if admitted:
            self._changed.notify_all()


def _shared(request: Request) -> bool:
    """Whether it is for something that other programs take from as well."""
    return bool(request.gpus or request.disk_bytes)


def capacity(machine: Machine, request: Request, at_most: int) -> int:
    """How many of `request` the machine holds at once, counted up to `at_most`."""
    allocatable, count = allocatable_of(machine), 0
    while count < at_most:
        allocated = allocate(allocatable, request)
        if allocated is None:
            break
        allocatable, count = allocated[0], count + 1
    return count
