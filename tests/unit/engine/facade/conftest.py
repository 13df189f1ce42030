"""An engine server with the store's services only, on a port of its own, and an SDK client for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pachyderm_sdk import Client

from kaos_backend.engine.facade.chunks import ChunkServer
from kaos_backend.engine.facade.engine.service import EngineService
from kaos_backend.engine.facade.metadata import MetadataService
from kaos_backend.engine.facade.misc import AdminService, EnterpriseService, HealthService, VersionService
from kaos_backend.engine.facade.pfs.service import PfsService
from kaos_backend.engine.facade.server import build_server
from kaos_backend.engine.facade.storage import FilesetService
from kaos_backend.engine.facade.transaction import Transactions, TransactionService
from kaos_backend.engine.store.store import Store

TOKEN = "secret-of-the-test"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "engine")
    yield opened
    opened.close()


@pytest.fixture
def address(store: Store) -> Iterator[tuple[str, int]]:
    transactions = Transactions(store)
    chunks = ChunkServer(store)
    server, port = build_server(
        [
            PfsService(store, transactions),
            FilesetService(store, chunks),
            TransactionService(transactions),
            MetadataService(store),
            AdminService(store, {"kaos.runtime": "process"}),
            VersionService(),
            EnterpriseService(),
            HealthService(),
            EngineService(store),
        ],
        TOKEN,
    )
    server.start()
    yield "127.0.0.1", port
    server.stop(grace=0).wait(5)
    chunks.stop()


@pytest.fixture
def client(address: tuple[str, int]) -> Client:
    host, port = address
    return Client(host=host, port=port, auth_token=TOKEN)
