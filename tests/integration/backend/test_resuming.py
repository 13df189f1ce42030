"""Uploads over a network: what is stored already does not travel, and what broke off goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

from kaos_backend import app
from kaos_backend.services import batches
from kaos_backend.services.staging import upload_key
from kaos_cli import upload
from kaos_cli.errors import KaosError
from kaos_formats.files import read_json
from tests.support.archives import archive, tree_of
from tests.support.backend import Backend, repo, stop_engine, traces
from tests.support.waiting import eventually
from tests.support.wire import OVERHEAD, lay_out, noise, send, stored, wire


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "PAUSES_S", (0.0, 0.0, 0.0))


def test_a_connection_that_is_cut_costs_the_file_under_way(
    backend: Backend, workspace: str, tmp_path: Path
) -> None:
    files = noise(40, 100_000)
    folder = lay_out(tmp_path / "d", files)
    with wire(backend.url, cut_after=2_500_000) as way:
        sent = send(way, backend.token, workspace, folder)
        assert 4_000_000 < way.bytes < 4_000_000 + OVERHEAD
    assert (sent.new_files, sent.new_bytes) == (40, 4_000_000)
    stored(backend, workspace, files)


def broken_off(backend: Backend, workspace: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload of which 2.5 MB arrive, and which is given up then."""
    with monkeypatch.context() as patched, wire(backend.url, cut_after=2_500_000) as way:
        patched.setattr(upload, "PAUSES_S", ())
        with pytest.raises(KaosError) as caught:
            send(way, backend.token, workspace, folder)
    assert caught.value.code == "connection_lost"
    assert "only what has not arrived" in caught.value.hint


def collect(backend: Backend) -> None:
    assert '"end"' in backend.request("POST", "/collect", json={"dry_run": False}).text


def test_the_same_command_sends_the_rest(
    backend: Backend, workspace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = noise(40, 100_000)
    folder = lay_out(tmp_path / "d", files)
    broken_off(backend, workspace, folder, monkeypatch)
    eventually(lambda: has_content(backend.sdk(), workspace))
    collect(backend)
    with wire(backend.url) as way:
        send(way, backend.token, workspace, folder)
        assert way.bytes < 1_500_000 + OVERHEAD
    stored(backend, workspace, files)


def has_content(client: Client, workspace: str) -> bool:
    """Whether a commit of the workspace's data has files."""
    if "data" not in traces(client, workspace):
        return False
    for info in client.pfs.list_commit(repo=repo(workspace, "data"), all=True):
        if list(client.pfs.list_file(file=pfs.File(commit=info.commit, path="/"))):
            return True
    return False


def test_an_engine_that_is_killed_on_the_way(
    backend: Backend, workspace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "BATCH_BYTES", 500_000)
    files = noise(40, 100_000)
    folder = lay_out(tmp_path / "d", files)
    body = archive(files)[1]
    half, killed = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        yield body[:2_500_000]
        half.set()
        assert killed.wait(30)
        yield body[2_500_000:]

    path = f"/workspaces/{workspace}/bundles/data/{tree_of(files).id}?name=d"
    answers: list[str] = []
    thread = threading.Thread(
        target=lambda: answers.append(backend.request("PUT", path, data=slowly()).json()["error"]["code"])
    )
    thread.start()
    assert half.wait(30)
    eventually(lambda: has_content(backend.sdk(), workspace))
    stop_engine(backend.home)
    killed.set()
    thread.join(30)
    assert answers == ["engine_unavailable"]
    with wire(backend.url) as way:
        send(way, backend.token, workspace, folder)
        assert way.bytes < 3_600_000
    stored(backend, workspace, files)


def test_what_nobody_goes_on_with_is_given_back(
    backend: Backend, workspace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = noise(40, 100_000)
    broken_off(backend, workspace, lay_out(tmp_path / "d", files), monkeypatch)
    eventually(lambda: has_content(backend.sdk(), workspace))
    recovery = backend.app.state.services.recovery
    monkeypatch.setattr(recovery, "_now", lambda: datetime.now(UTC) + timedelta(hours=23))
    recovery.run()
    recovery.sweep()
    assert has_content(backend.sdk(), workspace)
    # It may have taken longer than that until it broke off.
    staging = backend.app.state.services.bundles.staging
    [(commit_id, at)] = staging._broken_off.items()
    staging._broken_off[commit_id] = at + timedelta(hours=24)
    monkeypatch.setattr(recovery, "_now", lambda: datetime.now(UTC) + timedelta(hours=25))
    recovery.sweep()
    assert has_content(backend.sdk(), workspace)
    staging._broken_off[commit_id] = at
    # Whoever is at it right now may take longer.
    locks, bundle_id = recovery._locks, tree_of(files).id
    for key in (upload_key(workspace, "data", bundle_id), ("workspace", workspace)):
        with locks.hold(*key):
            recovery.sweep()
        assert has_content(backend.sdk(), workspace)
    recovery.sweep()
    assert traces(backend.sdk(), workspace) == {"jobs": []}
    collect(backend)
    sizes = {entry.hash: entry.size for entry in tree_of(files).entries}
    path = f"/workspaces/{workspace}/bundles/data/{'a' * 32}/missing"
    assert set(backend.call("POST", path, json={"objects": sizes})["missing"]) == set(sizes)


def test_a_backend_looks_through_it_by_itself(
    backend: Backend, workspace: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = read_json(backend.home / "engine.json")
    monkeypatch.setattr(app, "SWEEP_EVERY_S", 0.01)
    later = Backend(home, engine=f"grpc://{info['host']}:{info['port']}", token=backend.token)
    recovery = later.app.state.services.recovery
    later.start()
    try:
        later.call("GET", "/workspaces")
        bundle_id = backend.put(workspace, "data", {"f": b"staged"})
        assert len(traces(backend.sdk(), workspace)["data"][1]) == 1
        monkeypatch.setattr(recovery, "_now", lambda: datetime.now(UTC) + timedelta(hours=25))
        eventually(lambda: traces(backend.sdk(), workspace) == {"jobs": []})
        backend.error("GET", f"/workspaces/{workspace}/bundles/data/{bundle_id}", 404, "no_bundle")
    finally:
        later.close()


def test_what_another_workspace_has_does_not_travel(backend: Backend, workspace: str, tmp_path: Path) -> None:
    files = noise(5, 300_000)
    backend.put(workspace, "data", files)
    other = backend.workspace(f"{workspace}-other")
    moved = {f"sub-{path}": data for path, data in files.items()} | {"new": b"new"}
    with wire(backend.url) as way:
        sent = send(way, backend.token, other, lay_out(tmp_path / "d", moved))
        assert way.bytes < OVERHEAD
    assert (sent.new_files, sent.new_bytes) == (1, 3)
    stored(backend, other, moved)


def test_a_list_that_lies_about_a_size_gets_nothing(backend: Backend, workspace: str) -> None:
    files = noise(1, 1000)
    backend.put(workspace, "data", files)
    [entry] = tree_of(files).entries
    path = f"/workspaces/{workspace}/bundles/data/{'a' * 32}/missing"
    assert backend.call("POST", path, json={"objects": {entry.hash: 1000}})["missing"] == []
    assert backend.call("POST", path, json={"objects": {entry.hash: 999}})["missing"] == [entry.hash]
