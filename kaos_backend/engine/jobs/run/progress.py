"""How far a datum is, and how it ended."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from kaos_backend.engine.jobs.db.rows import DatumRow
from kaos_backend.engine.jobs.schedule.states import DatumState
from kaos_backend.engine.store.store import Staged
from kaos_backend.engine.workers.port import Worker


class Phase(Enum):
    """How far a datum is: inputs laid out, waiting for a share of the machine, on a worker, output stored."""

    INPUTS = auto()
    SHARE = auto()
    RUN = auto()
    STORE = auto()


@dataclass(slots=True, eq=False)
class Running:
    """A datum that is being worked on. `trouble`: what keeps it from going on now, "" if nothing does.
    `stopped`: why it is to end here and now, as one that failed; None: what cancels it may run it again.
    `worker`: what it runs on now.
    """

    datum: DatumRow
    started_us: int
    cancel: threading.Event
    phase: Phase = Phase.INPUTS
    trouble: str = ""
    stopped: str | None = None
    worker: Worker | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A datum that ended. `staged` is its output (for a failed one, what its last attempt left),
    `image` that of its last attempt, by digest.
    """

    datum: DatumRow
    state: DatumState
    staged: Staged | None
    reason: str
    tries: int
    process_us: int
    started_us: int
    finished_us: int
    image: str = ""


def matches(datum: DatumRow, filters: Iterable[str]) -> bool:
    """Whether each filter names a file of the datum."""
    names = {name for file in datum.files for name in file.names}
    return all(wanted in names for wanted in filters)
