"""The engine put together: a store, the jobs over it, and the gRPC server in front of both."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import grpc

from kaos_backend.engine.clock import Clock, now_us
from kaos_backend.engine.detect import outside
from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.facade.chunks import ChunkServer
from kaos_backend.engine.facade.engine.control import ControlService
from kaos_backend.engine.facade.engine.foreground import ForegroundService
from kaos_backend.engine.facade.engine.handover import HandoverService
from kaos_backend.engine.facade.engine.logs import LogService
from kaos_backend.engine.facade.engine.queue import QueueService
from kaos_backend.engine.facade.engine.reading import ReadingService
from kaos_backend.engine.facade.engine.service import EngineService
from kaos_backend.engine.facade.engine.space import SpaceService
from kaos_backend.engine.facade.engine.transact import TransactService
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
from kaos_backend.engine.facade.storage import FilesetService
from kaos_backend.engine.facade.transaction import Transactions, TransactionService
from kaos_backend.engine.gpus import Inventory, counted
from kaos_backend.engine.jobs.db.pipelines import PipelineMetadata
from kaos_backend.engine.jobs.db.rows import MIGRATIONS
from kaos_backend.engine.jobs.schedule.machine import Machine
from kaos_backend.engine.jobs.service import Jobs
from kaos_backend.engine.jobs.upkeep import SHARE
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.workers.port import Runtime
from kaos_formats.home import Home
from kaos_formats.messages import remember_types

_STOP_GRACE_S = 1.0


@dataclass(slots=True)
class EngineHandle:
    """A running engine. `address` is `host:port`."""

    address: str
    store: Store
    jobs: Jobs
    server: grpc.Server
    chunks: ChunkServer

    def stop(self) -> None:
        """Answer no more calls, interrupt running datums (they run again next time), close the store."""
        self.server.stop(_STOP_GRACE_S)
        self.chunks.stop()
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
    gpus: Inventory | None = None,
    inputs_bytes: int | None = None,
    socket: Path | None = None,
    upkeep_share: float = SHARE,
) -> EngineHandle:
    """Open the store, take up unfinished jobs, serve. Port 0 takes any free one; `socket` see `build_server`.

    `gpus` are those that `machine` counts; `inputs_bytes` and `upkeep_share` are for `Jobs`.

    Raises EngineError when the port is taken or the store cannot be opened.
    """
    remember_types()
    store = Store.open(data_dir, clock=clock, migrations=MIGRATIONS)
    try:
        inventory = counted(machine.gpus) if gpus is None else gpus
        jobs = Jobs(
            store,
            runtime,
            machine,
            data_dir,
            clock,
            look=outside(inventory, data_dir),
            inputs_bytes=inputs_bytes,
            upkeep_share=upkeep_share,
        )
        metadata = {
            "kaos.runtime": runtime.name,
            "kaos.isolation": runtime.isolation,
            "kaos.notes": json.dumps(list(runtime.notes)),
            "kaos.machine": json.dumps(
                {"cpus": machine.cpus, "memory_bytes": machine.memory_bytes, "gpus": machine.gpus}
            ),
        }
        own_log = Home(data_dir.parent).log("engine")
        transactions = Transactions(store, runners(jobs))
        chunks = ChunkServer(store)
        services: list[Service] = [
            PfsService(store, transactions, jobs.defaults_json),
            FilesetService(store, chunks),
            PpsService(jobs, transactions, own_log),
            TransactionService(transactions),
            MetadataService(store, PipelineMetadata()),
            AdminService(store, metadata),
            VersionService(),
            EnterpriseService(),
            HealthService(),
            EngineService(store, data_dir / "trees"),
            HandoverService(store),
            SpaceService(jobs.upkeep),
            ControlService(jobs),
            TransactService(jobs),
            QueueService(jobs, inventory),
            ReadingService(jobs),
            LogService(LogCalls(jobs, own_log).ranges),
            ForegroundService(jobs.foregrounds),
        ]
        server, bound = build_server(services, token, host, port, socket)
    except BaseException:
        store.close()
        raise
    jobs.access = {
        "PACHD_PEER_SERVICE_HOST": host,
        "PACHD_PEER_SERVICE_PORT": str(bound),
        "PACH_PYTHON_AUTH_TOKEN": token,
    }
    jobs.start()
    server.start()
    return EngineHandle(f"{host}:{bound}", store, jobs, server, chunks)


__all__ = ["EngineError", "EngineHandle", "start"]
