"""What every running job shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kaos_backend.engine.clock import Clock
from kaos_backend.engine.jobs.db.secrets import Vault
from kaos_backend.engine.jobs.run.inputs import InputCache
from kaos_backend.engine.jobs.run.logs import Logs
from kaos_backend.engine.jobs.schedule.admission import Admission
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.workers.port import Runtime


@dataclass(frozen=True, slots=True)
class RunEnv:
    """The engine's parts that a job runs on; one value for all jobs.

    `access`: the variables with which a client finds this engine and is let in.
    """

    store: Store
    runtime: Runtime
    admission: Admission
    inputs: InputCache
    logs: Logs
    scratch: Path
    clock: Clock
    vault: Vault
    access: Callable[[], Mapping[str, str]]
