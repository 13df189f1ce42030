"""The door to the machine: what runs at once never exceeds it; the rest waits in order of arrival."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from kaos_backend.engine.jobs.schedule.machine import (
    Allocatable,
    Allocation,
    Machine,
    Request,
    allocatable_of,
    allocate,
    release,
    shortage,
)


class Admission:
    """First come, first served: a large request at the front is not overtaken, so it is never starved."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._allocatable = allocatable_of(machine)
        self._waiting: deque[object] = deque()
        # Who has what, by the identity of the allocation: two may be equal.
        self._holders: dict[int, str] = {}
        self._changed = threading.Condition()

    @property
    def allocatable(self) -> Allocatable:
        with self._changed:
            return self._allocatable

    def acquire(self, request: Request, given_up: Callable[[], bool], holder: str) -> Allocation | None:
        """Wait for a share. None once `given_up()` is true (call `nudge` when that changes).

        `holder` is what others that wait are told of who has it.
        """
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                while not given_up():
                    if self._waiting[0] is ticket:
                        allocated = allocate(self._allocatable, request)
                        if allocated is not None:
                            self._allocatable, allocation = allocated
                            self._holders[id(allocation)] = holder
                            return allocation
                    self._changed.wait()
                return None
            finally:
                self._waiting.remove(ticket)
                # Whoever is first now may fit as well.
                self._changed.notify_all()

    def release(self, allocation: Allocation) -> None:
        """Give a share back."""
        with self._changed:
            self._allocatable = release(self._allocatable, allocation)
            del self._holders[id(allocation)]
            self._changed.notify_all()

    def why(self, request: Request, holder: str) -> str:
        """What `request` waits for now, and which other holders have it: "1 cpu (0 of 2 free), …"."""
        with self._changed:
            allocatable, others = self._allocatable, sorted({*self._holders.values()} - {holder})
        short = shortage(self.machine, allocatable, request)
        if not short:
            return "its turn on this machine"
        return f"{short}, in use by {', '.join(others)}" if others else short

    def nudge(self) -> None:
        """Make everyone who waits look again whether to give up."""
        with self._changed:
            self._changed.notify_all()


def capacity(machine: Machine, request: Request, at_most: int) -> int:
    """How many of `request` the machine holds at once, counted up to `at_most`."""
    allocatable, count = allocatable_of(machine), 0
    while count < at_most:
        allocated = allocate(allocatable, request)
        if allocated is None:
            break
        allocatable, count = allocated[0], count + 1
    return count
