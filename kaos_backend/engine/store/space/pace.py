"""How hard the upkeep of the store may work, and how it tells of it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from kaos_backend.engine.errors import EngineError

Stage = Literal["mark", "wait", "sweep", "repack", "compact"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage is. In `wait`: how many of those have ended that are waited for."""

    stage: Stage
    done: int
    total: int


class Interrupted(EngineError):
    """The upkeep was told to stop. What it did so far stays done, and nothing is half done."""


@dataclass(slots=True)
class Pace:
    """`share` of one core's time that the work may take; `stop` ends it at its next step, and so does
    `give_way`, which is asked then. `patience_s`: how long to wait for uploads at most.

    Work is cut into slices of `SLICE_S`; between two of them nothing is held that others could wait for.
    """

    share: float = 1.0
    stop: threading.Event = field(default_factory=threading.Event)
    give_way: Callable[[], bool] = lambda: False
    patience_s: float = math.inf
    _began: float = field(default_factory=time.monotonic)

    def rest(self) -> None:
        """Between two slices. Raises Interrupted."""
        worked = time.monotonic() - self._began
        pause = worked * (1 / self.share - 1) if self.share < 1 else 0
        if self.stop.wait(pause) or self.give_way():
            raise Interrupted("the collection was stopped")
        self._began = time.monotonic()


SLICE_S = 0.02


def slices() -> Iterator[bool]:
    """True until a slice is over."""
    until = time.monotonic() + SLICE_S
    while time.monotonic() < until:
        yield True
