"""The server under test, and a project of its own for every test."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from pachyderm_sdk import Client

from tests.parity.pachd import Address, Pachd, eventually

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Another server pulls images and schedules pods; only its being gone should end a test.
TIMEOUT_ELSEWHERE_S = 900


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every test of the suite cites the section of the protocol's description that it holds the server to."""
    for item in items:
        if HERE not in item.path.parents:
            continue
        doc = getattr(getattr(item, "function", None), "__doc__", None) or ""
        if not re.match(r"§\d+(\.\d+)?", doc):
            raise pytest.UsageError(
                f"{item.nodeid}: its docstring must start with the section, as in '§5.1: …'"
            )
        if any(not marker.args for marker in item.iter_markers("workers")):
            raise pytest.UsageError(f"{item.nodeid}: what needs workers says why")
        if any(not marker.args for marker in item.iter_markers("embedded")):
            raise pytest.UsageError(f"{item.nodeid}: what holds for one server only says why")
        if config.getoption("--pachd"):
            item.add_marker(pytest.mark.timeout(TIMEOUT_ELSEWHERE_S))


@pytest.fixture(scope="session")
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """Where the server under test listens: what `--pachd` names, or an embedded one for this session."""
    if named := request.config.getoption("--pachd"):
        host, _, port = named.rpartition(":")
        yield Address(host or "localhost", int(port), request.config.getoption("--token"))
        return
    home = tmp_path_factory.mktemp("pachd")
    process = subprocess.Popen(
        [sys.executable, "-m", "kaos_backend.engine", "--home", str(home)],
        cwd=ROOT,
        env={**os.environ, "KAOS_ENGINE_CPUS": "2", "KAOS_ENGINE_MEMORY": "4Gi"},
        stdin=subprocess.DEVNULL,
    )
    info = home / "engine.json"
    eventually(lambda: info.exists() or process.poll() is not None, "the embedded server starts")
    assert process.poll() is None, (home / "logs" / "engine.log").read_text()
    found = json.loads(info.read_text())
    yield Address(found["host"], found["port"], (home / "token").read_text().strip(), found["socket"])
    process.terminate()
    process.wait(30)


@pytest.fixture
def pachd(address: Address, request: pytest.FixtureRequest) -> Iterator[Pachd]:
    """The server, and an empty project on it that goes with the test."""
    opened = Pachd(
        Client(host=address.host, port=address.port, auth_token=address.token or None),
        address,
        request.config.getoption("--image"),
        # No two runs against one server get in each other's way.
        f"parity-{time.time_ns():x}",
    )
    yield opened
    opened.remove()


@pytest.fixture(autouse=True)
def one_server_only(request: pytest.FixtureRequest, pachd: Pachd) -> None:
    """What the engine of kaos refuses by name must be refused by it, until somebody builds it; what holds for
    that engine only is asked of no other server.
    """
    unbuilt, embedded = map(request.node.get_closest_marker, ("unbuilt", "embedded"))
    if not unbuilt and not embedded:
        return
    is_embedded = "kaos.runtime" in pachd.client.admin.inspect_cluster().metadata
    if unbuilt and is_embedded:
        request.applymarker(pytest.mark.xfail(reason="the engine says so", raises=grpc.RpcError, strict=True))
    if embedded and not is_embedded:
        pytest.skip(f"holds for the embedded engine only: {embedded.args[0]}")
