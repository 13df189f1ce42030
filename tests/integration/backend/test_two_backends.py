"""Two backends on one engine: neither takes the other's unfinished work for the leavings of a crash."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pachyderm_sdk.api import pfs

from kaos_backend.app import make_services
from kaos_backend.domain.descriptions import Description
from kaos_backend.settings import Settings
from kaos_backend.supervisor import make_engine
from kaos_formats import names
from kaos_formats.files import read_json
from tests.support.archives import archive
from tests.support.backend import DATA, ZSTD, Backend, repo
from tests.support.waiting import eventually

AFTER_AN_HOUR = timedelta(hours=1, seconds=1)
AFTER_A_DAY = timedelta(hours=24, seconds=1)


@pytest.fixture
def start_second(backend: Backend, home: Path) -> Iterator[Callable[[], Backend]]:
    """Starts another backend, with a home of its own, on the engine of ``backend``."""
    backend.call("GET", "/workspaces")
    info = read_json(backend.home / "engine.json")
    address = f"{info['host']}:{info['port']}"
    second = Backend(home, engine=f"grpc://{address}", token=backend.token)

    def start() -> Backend:
        second.start()
        second.call("GET", "/workspaces")
        return second

    yield start
    second.close()


def owner(backend: Backend) -> str:
    return str(backend.app.state.services.bundles.staging.owner)


def recover(backend: Backend, later: timedelta = timedelta(0)) -> None:
    """The recovery that ``backend`` would run if it were started again, so much later."""
    settings: Settings = backend.app.state.services.settings
    services = make_services(settings, make_engine(settings), lambda: datetime.now(UTC) + later)
    services.recovery.run()


def is_open(backend: Backend, commit: pfs.Commit) -> bool:
    return bool(backend.sdk().pfs.inspect_commit(commit=commit).finished.timestamp() <= 0)


def test_each_home_is_an_owner_of_its_own_and_stays_it(
    backend: Backend, start_second: Callable[[], Backend]
) -> None:
    second = start_second()
    assert owner(second) != owner(backend)
    settings = second.app.state.services.settings
    again = make_services(settings, make_engine(settings), lambda: datetime.now(UTC))
    assert again.bundles.staging.owner == owner(second)


def test_an_upload_goes_on_while_another_backend_starts(
    backend: Backend, workspace: str, start_second: Callable[[], Backend]
) -> None:
    bundle_id, body = archive({**DATA, "large.bin": bytes(range(256)) * 40_000})
    half, more = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        yield body[: len(body) // 2]
        half.set()
        assert more.wait(30)
        yield body[len(body) // 2 :]

    answers: list[Any] = []
    path = f"/workspaces/{workspace}/bundles/data/{bundle_id}"

    def upload() -> None:
        answers.append(backend.request("PUT", path, params={"name": "x"}, data=slowly(), headers=ZSTD))

    thread = threading.Thread(target=upload)
    thread.start()
    assert half.wait(30)
    branch = pfs.Branch(repo=repo(workspace, "data"), name=names.staging_branch(bundle_id, owner(backend)))
    eventually(lambda: backend.sdk().pfs.branch_exists(branch))
    second = start_second()
    # The same bundle may come to both, each of which stages it for itself.
    assert second.put(workspace, "data", {**DATA, "large.bin": bytes(range(256)) * 40_000}) == bundle_id
    more.set()
    thread.join(60)
    assert [answer.status_code for answer in answers] == [201]
    assert backend.deploy(workspace, data=bundle_id)["parts"] == ["data"]
    assert backend.call("GET", f"/workspaces/{workspace}/bundles/data/head")["id"] == bundle_id


def test_what_another_backend_has_begun_is_left_to_it_until_it_is_old(
    backend: Backend, workspace: str, start_second: Callable[[], Backend]
) -> None:
    second = start_second()
    client = backend.sdk()
    for name in ("data", "hyper"):
        client.pfs.create_repo(repo=repo(workspace, name))
    grid = Description("hyper", "g", trials=1, grid={"lr": 1}, owner=owner(second))
    opened = client.pfs.start_commit(
        branch=pfs.Branch(repo=repo(workspace, "hyper"), name="master"), description=grid.to_json()
    )
    half = Description("staging", "a" * 32, owner=owner(second))
    branch = pfs.Branch(repo=repo(workspace, "data"), name=names.staging_branch(half.id, half.owner))
    staged = client.pfs.start_commit(branch=branch, description=half.to_json())
    begun = client.transaction.start_transaction()
    client.pfs.start_commit(
        branch=pfs.Branch(repo=repo(workspace, "data"), name="master"),
        description=Description("data", "b" * 32, owner=owner(second)).to_json(),
    )
    client.transaction_id = None
    recover(backend)
    assert is_open(backend, opened)
    assert is_open(backend, staged)
    assert client.transaction.transaction_exists(begun)
    recover(backend, AFTER_AN_HOUR)
    assert not is_open(backend, opened)
    assert not client.transaction.transaction_exists(begun)
    assert client.pfs.branch_exists(branch)
    recover(backend, AFTER_A_DAY)
    assert not client.pfs.branch_exists(branch)
    assert not client.pfs.commit_exists(staged)


def test_what_a_backend_has_begun_itself_it_ends_at_once(backend: Backend, workspace: str) -> None:
    client = backend.sdk()
    client.pfs.create_repo(repo=repo(workspace, "data"))
    half = Description("staging", "a" * 32, owner=owner(backend))
    branch = pfs.Branch(repo=repo(workspace, "data"), name=names.staging_branch(half.id, half.owner))
    staged = client.pfs.start_commit(branch=branch, description=half.to_json())
    begun = client.transaction.start_transaction()
    client.pfs.start_commit(
        branch=pfs.Branch(repo=repo(workspace, "data"), name="master"),
        description=Description("data", "b" * 32, owner=owner(backend)).to_json(),
    )
    client.transaction_id = None
    recover(backend)
    assert not client.transaction.transaction_exists(begun)
    assert not client.pfs.commit_exists(staged)
