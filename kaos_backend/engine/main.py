"""The engine put together: a store, the jobs over it, and the gRPC server in front of both."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil

from kaos_backend.engine.clock import Clock, now_us
from kaos_backend.engine.errors import EngineError, InvalidArgument
from kaos_backend.engine.facade.engine.control import ControlService
from kaos_backend.engine.facade.engine.logs import LogService
from kaos_backend.engine.facade.engine.service import EngineService
from kaos_backend.engine.facade.metadata import MetadataService
from kaos_backend.engine.facade.misc import (
    AdminService,
    EnterpriseService,
    HealthService,
    VersionService,
)
from kaos_backend.engine.facade.pfs.service import PfsService
from kaos_backend.engine.facade.pps.logs import LogCalls
from kaos_backend.engine.facade.pps.service import PpsService, runners
from kaos_backend.engine.facade.rpc import Service
from kaos_backend.engine.facade.server import build_server
from kaos_backend.engine.facade.transaction import Transactions, TransactionService
from kaos_backend.engine.jobs.db.pipelines import PipelineMetadata
from kaos_backend.engine.jobs.db.rows import MIGRATIONS
from kaos_backend.engine.jobs.schedule.machine import Machine
from kaos_backend.engine.jobs.service import Jobs
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.workers.port import Runtime
from kaos_formats.quantity import parse_bytes

_STOP_GRACE_S = 1.0


def detect_machine(env: Mapping[str, str]) -> Machine:
    """What this process may use, or what KAOS_ENGINE_CPUS, KAOS_ENGINE_MEMORY and KAOS_ENGINE_GPUS say.

    Raises InvalidArgument naming the variable that makes no sense.
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
    return Machine(
        cpus=number("KAOS_ENGINE_CPUS", _cpus(), 1),
        memory_bytes=memory,
        gpus=number("KAOS_ENGINE_GPUS", len(list(Path("/dev").glob("nvidia[0-9]*"))), 0),
    )


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


@dataclass(slots=True)
class EngineHandle:
    """A running engine. `address` is `host:port`."""

    address: str
    store: Store
    jobs: Jobs
    server: grpc.Server

    def stop(self) -> None:
        """Answer no more calls, interrupt running datums (they run again next time), close the store."""
        self.server.stop(_STOP_GRACE_S)
        self.jobs.stop()
        # Parked waits look whether they are still wanted.
        self.store.changes.notify()
        self.server.stop(_STOP_GRACE_S).wait()
        self.store.close()


def start(
    data_dir: Path,
    host: str,
    port: int,
    token: str,
    runtime: Runtime,
    machine: Machine,
    clock: Clock = now_us,
) -> EngineHandle:
    """Open the store, take up unfinished jobs, serve. Port 0 takes any free one.

    Raises EngineError when the port is taken or the store cannot be opened.
    """
    store = Store.open(data_dir, clock=clock, migrations=MIGRATIONS)
    try:
        jobs = Jobs(store, runtime, machine, data_dir, clock)
        metadata = {
            "kaos.runtime": runtime.name,
            "kaos.isolation": runtime.isolation,
            "kaos.notes": json.dumps(list(runtime.notes)),
            "kaos.machine": json.dumps(
                {"cpus": machine.cpus, "memory_bytes": machine.memory_bytes, "gpus": machine.gpus}
            ),
        }
        transactions = Transactions(store, runners(jobs))
        services: list[Service] = [
            PfsService(store, transactions, jobs.defaults_json),
            PpsService(jobs, transactions),
            TransactionService(transactions),
            MetadataService(store, PipelineMetadata()),
            AdminService(store, metadata),
            VersionService(),
            EnterpriseService(),
            HealthService(),
            EngineService(store, data_dir / "trees"),
            ControlService(jobs),
            LogService(LogCalls(jobs).blocks),
        ]
        server, bound = build_server(services, token, host, port)
    except BaseException:
        store.close()
        raise
    jobs.start()
    server.start()
    return EngineHandle(f"{host}:{bound}", store, jobs, server)


__all__ = ["EngineError", "EngineHandle", "detect_machine", "start"]
