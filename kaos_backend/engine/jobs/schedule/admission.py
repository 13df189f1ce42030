"""The door to the machine: what runs at once never exceeds it; the rest waits in order of arrival."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from kaos_backend.engine.jobs.schedule.machine import (
    Booking,
    Ledger,
    Machine,
    Request,
    book,
    empty_ledger,
    release,
)


class Admission:
    """First come, first served: a large request at the front is not overtaken, so it is never starved."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._ledger = empty_ledger(machine)
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def ledger(self) -> Ledger:
        with self._changed:
            return self._ledger

    def acquire(self, request: Request, given_up: Callable[[], bool]) -> Booking | None:
        """Wait for a share. None once `given_up()` is true (call `nudge` when that changes)."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                while not given_up():
                    if self._waiting[0] is ticket:
                        booked = book(self._ledger, request)
                        if booked is not None:
                            self._ledger, booking = booked
                            return booking
                    self._changed.wait()
                return None
            finally:
                self._waiting.remove(ticket)
                # Whoever is first now may fit as well.
                self._changed.notify_all()

    def release(self, booking: Booking) -> None:
        """Give a share back."""
        with self._changed:
            self._ledger = release(self._ledger, booking)
            self._changed.notify_all()

    def nudge(self) -> None:
        """Make everyone who waits look again whether to give up."""
        with self._changed:
            self._changed.notify_all()


def capacity(machine: Machine, request: Request, at_most: int) -> int:
    """How many of `request` the machine holds at once, counted up to `at_most`."""
    ledger, count = empty_ledger(machine), 0
    while count < at_most:
        booked = book(ledger, request)
        if booked is None:
            break
        ledger, count = booked[0], count + 1
    return count
