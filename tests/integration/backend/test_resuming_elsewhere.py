"""Uploads to a Pachyderm that is not the embedded engine: the open commit has what came before the break."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pachyderm_sdk.api import pfs

from kaos_backend.services import arrivals, batches
from kaos_cli import upload
from kaos_cli.errors import KaosError
from tests.support.archives import archive, tree_of
from tests.support.backend import Backend, repo, traces
from tests.support.elsewhere import Pachd, elsewhere
from tests.support.waiting import eventually
from tests.support.wire import OVERHEAD, lay_out, noise, send, stored, wire

BATCH = 500_000
LARGE = 3_000_000


@pytest.fixture(scope="module")
def pachd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pachd]:
    with elsewhere(tmp_path_factory.mktemp("pachd")) as running:
        yield running


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory, pachd: Pachd) -> Iterator[Backend]:
    running = Backend(tmp_path_factory.mktemp("home"), engine=pachd.address, token=pachd.token)
    running.sdk = pachd.client  # type: ignore[method-assign]
    running.start()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "PAUSES_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(batches, "BATCH_BYTES", BATCH)


def given_up(backend: Backend, workspace: str, folder: Path, after: int) -> None:
    with pytest.MonkeyPatch.context() as patched, wire(backend.url, cut_after=after) as way:
        patched.setattr(upload, "PAUSES_S", ())
        with pytest.raises(KaosError, match="lost the connection"):
            send(way, backend.token, workspace, folder)


def sizes(backend: Backend, workspace: str) -> dict[str, int]:
    """The files of the one commit of the workspace's data, as far as they have come."""
    if "data" not in traces(backend.sdk(), workspace):
        return {}
    [info] = backend.sdk().pfs.list_commit(repo=repo(workspace, "data"), all=True)
    found = backend.sdk().pfs.walk_file(file=pfs.File(commit=info.commit, path="/"))
    return {one.file.path: one.size_bytes for one in found}


def test_it_needs_no_service_of_its_own(backend: Backend) -> None:
    backend.error("GET", "/disk", 501, "needs_embedded_engine")


def test_a_deploy_in_steps(backend: Backend, workspace: str) -> None:
    made = backend.deploy_all(workspace, {"lr": [0.1, 0.5]})
    job = backend.wait(workspace, made["job"])
    assert (job["state"], len(job["trials"])) == ("success", 2)
    for name in ("source", "data", "hyper"):
        branches, commits = traces(backend.sdk(), workspace)[name]
        assert (branches, commits) == (["master"], [(made["job"], True)])


def test_the_rest_is_sent_by_itself(backend: Backend, workspace: str, tmp_path: Path) -> None:
    files = noise(20, 100_000) | {"large": noise(1, LARGE)["f000"]}
    with wire(backend.url, cut_after=3_500_000) as way:
        send(way, backend.token, workspace, lay_out(tmp_path / "d", files))
        # Within the large file, of which a piece is lost.
        assert 5_000_000 < way.bytes < 5_000_000 + OVERHEAD + (1 << 20)
    stored(backend, workspace, files)


def test_the_same_command_under_another_name_on_another_base(
    backend: Backend, workspace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = noise(4, 1000)
    base = backend.put(workspace, "data", before)
    backend.deploy(workspace, data=base)
    twin = noise(1, 200_000)["f000"]
    files = before | {"large": noise(1, LARGE)["f000"], "twin": twin, "twin-2": twin, "z": b"last"}
    given_up(backend, workspace, lay_out(tmp_path / "d", files), 2_000_000)
    # What an upload builds on may be another one by then.
    backend.deploy(workspace, data=backend.put(workspace, "data", {"other": b"other"}))
    lay_out(tmp_path / "renamed", files)
    # A large bundle is asked about in many parts.
    monkeypatch.setattr(upload, "_AT_A_TIME", 2)
    with wire(backend.url) as way:
        send(way, backend.token, workspace, tmp_path / "renamed")
        assert way.bytes < LARGE + 200_000 - 2_000_000 + BATCH + (1 << 20)
    stored(backend, workspace, files)
    [current] = [
        one
        for one in backend.call("GET", f"/workspaces/{workspace}/versions/data")["versions"]
        if one["current"]
    ]
    assert current["name"] == "renamed"


def test_a_pachd_that_is_killed_on_the_way(
    backend: Backend, pachd: Pachd, workspace: str, tmp_path: Path
) -> None:
    files = noise(3, 1000) | {"large": noise(1, LARGE)["f000"]}
    folder = lay_out(tmp_path / "d", files)
    bundle_id, body = archive(files)
    half, killed = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        yield body[:2_200_000]
        half.set()
        assert killed.wait(30)
        yield body[2_200_000:]

    path = f"/workspaces/{workspace}/bundles/data/{bundle_id}"
    answers: list[str] = []
    thread = threading.Thread(
        target=lambda: answers.append(
            backend.request("PUT", f"{path}?name=d", data=slowly()).json()["error"]["code"]
        )
    )
    thread.start()
    assert half.wait(30)
    eventually(lambda: sizes(backend, workspace).get(f"/{bundle_id}/large", 0) >= 1 << 20)
    pachd.kill()
    pachd.start()
    killed.set()
    thread.join(30)
    assert answers == ["engine_unavailable"]
    with wire(backend.url) as way:
        send(way, backend.token, workspace, folder)
        assert way.bytes < LARGE - (1 << 20) + OVERHEAD
    stored(backend, workspace, files)


def test_what_is_doubled_is_found_out(backend: Backend, workspace: str, tmp_path: Path) -> None:
    files = noise(3, 1000) | {"large": noise(1, LARGE)["f000"]}
    folder = lay_out(tmp_path / "d", files)
    given_up(backend, workspace, folder, 2_000_000)
    bundle_id = tree_of(files).id
    client = backend.sdk()
    eventually(lambda: f"/{bundle_id}/f000" in sizes(backend, workspace))
    [commit] = [one.commit for one in client.pfs.list_commit(repo=repo(workspace, "data"), all=True)]
    # A stream whose end nobody heard of lands once more.
    real = arrivals.ElsewhereArrival.verify

    def landing(self: arrivals.ElsewhereArrival) -> None:
        client.pfs.put_file_from_bytes(
            commit=commit, path=f"/{bundle_id}/f000", data=files["f000"], append=True
        )
        real(self)

    with pytest.MonkeyPatch.context() as patched, wire(backend.url) as way:
        patched.setattr(arrivals.ElsewhereArrival, "verify", landing)
        with pytest.raises(KaosError, match="has 2000 bytes where it was stored, not 1000"):
            send(way, backend.token, workspace, folder)
    assert traces(client, workspace) == {"jobs": []}
    with wire(backend.url) as way:
        send(way, backend.token, workspace, folder)
    stored(backend, workspace, files)
