"""The engine as a process: started, adopted, brought back, and what a restart finishes."""

from __future__ import annotations

import os
import signal
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pachyderm_sdk.api import pfs

from kaos_backend.domain.descriptions import Description
from kaos_backend.engine.store.store import Store
from kaos_backend.errors import EngineUnavailable
from kaos_backend.pachd.endpoint import Endpoint
from kaos_backend.settings import Settings
from kaos_backend.supervisor import EmbeddedEngine
from kaos_formats import names
from kaos_formats.files import read_json
from kaos_formats.home import Home
from tests.support.backend import DATA, Backend, repo, running_backend, stop_engine, traces
from tests.support.waiting import eventually

GRID = {"lr": [0.1, 0.5]}


def test_a_dead_engine_is_brought_back_by_the_next_request(backend: Backend, workspace: str) -> None:
    backend.deploy_all(workspace, GRID)
    backend.wait(workspace)
    before = read_json(backend.home / "engine.json")["pid"]
    stop_engine(backend.home)
    assert backend.call("GET", "/health")["ok"]
    assert backend.call("GET", f"/workspaces/{workspace}")["jobs"] == 1
    assert read_json(backend.home / "engine.json")["pid"] != before


def test_many_requests_at_once_start_one_engine(backend: Backend, workspace: str) -> None:
    stop_engine(backend.home)
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(backend.request("GET", "/workspaces").status_code))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == [200] * 8


def test_an_engine_that_dies_during_a_grid_loses_nothing(backend: Backend, workspace: str) -> None:
    made = backend.deploy_all(workspace, {"lr": [n / 10 for n in range(12)]}, parallelism=2)
    path = f"/workspaces/{workspace}/jobs/{made['job']}"
    for done in (2, 6):
        eventually(lambda done=done: backend.call("GET", path)["stages"][-1]["processed"] >= done)
        stop_engine(backend.home)
    job = backend.wait(workspace, made["job"])
    assert (job["state"], job["stages"][-1]["processed"], len(job["trials"])) == ("success", 12, 12)


def test_a_second_backend_adopts_the_living_engine(home: Path) -> None:
    with running_backend(home) as first:
        first.call("GET", "/workspaces")
        pid = read_json(home / "engine.json")["pid"]
        second = EmbeddedEngine(Settings(home=Home(home)))
        endpoint = second.ensure()
        assert isinstance(endpoint, Endpoint)
        assert second.lives()
        assert read_json(home / "engine.json")["pid"] == pid
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not first.app.state.services.engine.lives())
        assert not second.lives()
        first.call("GET", "/workspaces")
        assert second.ensure().generation == 2


def test_a_store_of_a_newer_version_is_refused_in_words(home: Path) -> None:
    (home / "logs").mkdir(parents=True)
    store = Store.open(home / "engine")
    with store.write() as txn:
        txn.db.execute("INSERT INTO migrations VALUES ('store-9999', 0)")
    store.close()
    with pytest.raises(EngineUnavailable, match="does not start: the store was written by a newer version"):
        EmbeddedEngine(Settings(home=Home(home))).ensure()


def owner(backend: Backend) -> str:
    return str(backend.app.state.services.bundles.staging.owner)


def staging(backend: Backend, workspace: str, kind: str, bundle_id: str) -> tuple[pfs.Branch, pfs.Commit]:
    """The staging branch of a bundle, and its head."""
    there, name = repo(workspace, kind), names.staging_branch(bundle_id, owner(backend))
    return pfs.Branch(repo=there, name=name), pfs.Commit(repo=there, id=name)


def test_an_open_input_commit_is_rolled_forward(backend: Backend, workspace: str) -> None:
    """What a crash between the transaction and the copies leaves, made by hand."""
    data = backend.put(workspace, "data", DATA)
    client = backend.sdk()
    staged = client.pfs.inspect_commit(commit=staging(backend, workspace, "data", data)[1])
    for name in ("source", "hyper"):
        client.pfs.create_repo(repo=repo(workspace, name))
    opened = client.pfs.start_commit(
        branch=pfs.Branch(repo=repo(workspace, "data"), name="master"),
        description=f'{{"kaos":1,"kind":"data","id":"{data}","name":"x","author":"","created":"","files":2,"bytes":11,"staging":"{staged.commit.id}"}}',
    )
    grid = client.pfs.start_commit(
        branch=pfs.Branch(repo=repo(workspace, "hyper"), name="master"),
        description='{"kaos":1,"kind":"hyper","id":"g","author":"","created":"","trials":2,"axes":{"lr":[1,2]}}',
    )
    half = client.pfs.start_commit(
        branch=staging(backend, workspace, "source", "a" * 32)[0],
        description=Description("staging", "a" * 32, name="half", owner=owner(backend)).to_json(),
    )
    orphan = client.pfs.start_commit(
        branch=staging(backend, workspace, "source", "b" * 32)[0],
        description=Description("staging", "b" * 32, name="orphan", owner=owner(backend)).to_json(),
    )
    client.pfs.delete_branch(branch=staging(backend, workspace, "source", "b" * 32)[0])
    transaction = client.transaction.start_transaction()
    client.pfs.start_commit(
        branch=pfs.Branch(repo=repo(workspace, "source"), name="master"),
        description=Description("source", "x").to_json(),
    )
    stop_engine(backend.home)
    backend.call("GET", "/workspaces")
    client = backend.sdk()
    found = traces(client, workspace)
    assert found["data"] == (["master"], [(opened.id, True)])
    assert found["hyper"] == (["master"], [(grid.id, True)])
    assert "source" not in found, (half, orphan)
    assert not client.transaction.transaction_exists(transaction)
    files = [
        f.file.path
        for f in client.pfs.list_file(
            file=pfs.File(commit=pfs.Commit(repo=repo(workspace, "hyper"), id=grid.id), path="/")
        )
    ]
    assert len(files) == 2
    assert backend.call("GET", f"/workspaces/{workspace}/bundles/data/head")["id"] == data


def test_an_open_commit_without_content_is_finished_with_an_error(backend: Backend, workspace: str) -> None:
    client = backend.sdk()
    client.pfs.create_repo(repo=repo(workspace, "data"))
    opened = client.pfs.start_commit(
        branch=pfs.Branch(repo=repo(workspace, "data"), name="master"),
        description=f'{{"kaos":1,"kind":"data","id":"{"c" * 32}","staging":"{"d" * 12}4{"d" * 19}"}}',
    )
    stop_engine(backend.home)
    backend.error("GET", f"/workspaces/{workspace}/bundles/data/head", 404, "no_bundle")
    info = backend.sdk().pfs.inspect_commit(commit=pfs.Commit(repo=repo(workspace, "data"), id=opened.id))
    assert "deploy again" in info.error
    assert backend.deploy_all(workspace, GRID)["status"] == "started"
    assert backend.wait(workspace)["state"] == "success"


def test_a_complete_staged_bundle_survives_a_restart(backend: Backend, workspace: str) -> None:
    data = backend.put(workspace, "data", DATA)
    stop_engine(backend.home)
    assert backend.call("GET", f"/workspaces/{workspace}/bundles/data/{data}")["id"] == data


def test_a_strangers_open_commit_is_left_alone(backend: Backend, workspace: str) -> None:
    client = backend.sdk()
    client.pfs.create_repo(repo=repo(workspace, "mine"))
    client.pfs.create_repo(repo=repo(workspace, "data"))
    branch = pfs.Branch(repo=repo(workspace, "data"), name="theirs")
    opened = client.pfs.start_commit(branch=branch, description="mine")
    transaction = client.transaction.start_transaction()
    stop_engine(backend.home)
    backend.call("GET", "/workspaces")
    info = backend.sdk().pfs.inspect_commit(commit=pfs.Commit(repo=repo(workspace, "data"), id=opened.id))
    assert info.finished.timestamp() == 0
    assert backend.sdk().transaction.transaction_exists(transaction)


def test_an_empty_transaction_is_forgotten_after_an_hour(backend: Backend) -> None:
    client = backend.sdk()
    begun = client.transaction.start_transaction()
    client.transaction_id = None
    pachd = backend.app.state.services.pachd
    now = datetime.now(UTC)
    assert pachd.delete_abandoned_transactions("me", now - timedelta(hours=1)) == 0
    assert client.transaction.transaction_exists(begun)
    pachd.delete_abandoned_transactions("me", now + timedelta(seconds=1))
    assert not client.transaction.transaction_exists(begun)
