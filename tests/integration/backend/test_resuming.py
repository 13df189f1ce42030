"""Uploads over a network: what is stored already does not travel, and what broke off goes on."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

from kaos_backend.services import batches
from kaos_cli import upload
from kaos_cli.bundle import list_folder
from kaos_cli.client import KaosClient
from kaos_cli.errors import KaosError
from kaos_cli.terminal import Terminal
from kaos_cli.transport import Endpoint, Transport
from kaos_formats.files import read_json
from tests.support.archives import archive, tree_of
from tests.support.backend import Backend, eventually, repo, stop_engine, traces
from tests.support.process import Process

TERMINAL = Terminal(rich=False, bars=False, colour=False, width=80, quiet=True)
# Requests, file lists, and the file that was under way.
OVERHEAD = 250_000


class Wire:
    """A way to a backend on which bytes are counted, and which is cut after ``cut_after`` of them, once."""

    def __init__(self, url: str, cut_after: int | None = None) -> None:
        self._to = urlsplit(url)
        self._cut_after = cut_after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.bytes = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection((self._to.hostname, self._to.port))
            threading.Thread(target=self._up, args=(near, far), daemon=True).start()
            threading.Thread(target=self._down, args=(near, far), daemon=True).start()

    def _up(self, near: socket.socket, far: socket.socket) -> None:
        try:
            while data := near.recv(1 << 16):
                if self._cut_after is not None and self.bytes + len(data) >= self._cut_after:
                    self._cut_after = None
                    near.shutdown(socket.SHUT_RDWR)
                    break
                far.sendall(data)
                self.bytes += len(data)
            far.shutdown(socket.SHUT_WR)
        except OSError:
            near.close()

    def _down(self, near: socket.socket, far: socket.socket) -> None:
        try:
            while data := far.recv(1 << 16):
                near.sendall(data)
            near.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        finally:
            near.close()
            far.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def wire(url: str, cut_after: int | None = None) -> Iterator[Wire]:
    opened = Wire(url, cut_after)
    try:
        yield opened
    finally:
        opened.close()


def send(way: Wire, token: str, workspace: str, folder: Path) -> upload.Sent:
    """As the command line does from another machine."""
    client = KaosClient(lambda: Transport(Endpoint(way.url, token, local=False)))
    try:
        return upload.send(client, workspace, list_folder(folder, "data", folder.parent / "cache"), TERMINAL)
    finally:
        client.close()


def noise(count: int, size: int) -> dict[str, bytes]:
    return {f"f{i:03d}": os.urandom(size) for i in range(count)}


def lay_out(top: Path, files: Mapping[str, bytes]) -> Path:
    top.mkdir(parents=True)
    for path, data in files.items():
        (top / path).write_bytes(data)
    return top


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "PAUSES_S", (0.0, 0.0, 0.0))


def stored(backend: Backend, workspace: str, files: Mapping[str, bytes]) -> None:
    """Deploys it, and compares every byte."""
    bundle_id = tree_of(files).id
    backend.deploy(workspace, data=bundle_id)
    client = backend.sdk()
    for path, content in files.items():
        commit = pfs.Commit(repo=repo(workspace, "data"), id="master")
        with client.pfs.pfs_file(pfs.File(commit=commit, path=f"/{bundle_id}/{path}")) as opened:
            assert opened.read() == content


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


@pytest.mark.parametrize("what", ["collected", "engine killed"])
def test_the_same_command_sends_the_rest(
    backend: Backend, workspace: str, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = noise(40, 100_000)
    folder = lay_out(tmp_path / "d", files)
    broken_off(backend, workspace, folder, monkeypatch)
    eventually(lambda: has_content(backend.sdk(), workspace))
    if what == "engine killed":
        stop_engine(backend.home)
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
    assert has_content(backend.sdk(), workspace)
    monkeypatch.setattr(recovery, "_now", lambda: datetime.now(UTC) + timedelta(hours=25))
    recovery.run()
    assert traces(backend.sdk(), workspace) == {"jobs": []}
    collect(backend)
    sizes = {entry.hash: entry.size for entry in tree_of(files).entries}
    path = f"/workspaces/{workspace}/bundles/data/{'a' * 32}/missing"
    assert set(backend.call("POST", path, json={"objects": sizes})["missing"]) == set(sizes)


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


def test_a_backend_that_is_killed_on_the_way(tmp_path: Path) -> None:
    home = tmp_path / "home"
    files = noise(36, 1_000_000)
    body = archive(files)[1]
    first = Process(home).wait()
    try:
        place, token = urlsplit(first.url), (home / "token").read_text().strip()
        with socket.create_connection((place.hostname, place.port)) as connection:
            connection.sendall(
                f"PUT /v1/workspaces/default/bundles/data/{tree_of(files).id}?name=d HTTP/1.1\r\n"
                f"Host: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/zstd\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body[:35_600_000]
            )
            engine = read_json(home / "engine.json")
            client = Client(host=engine["host"], port=engine["port"], auth_token=token)
            eventually(lambda: has_content(client, "default"))
            first.end(signal.SIGKILL)
        second = Process(home).wait()
        with wire(second.url) as way:
            sent = send(way, token, "default", lay_out(tmp_path / "d", files))
            assert way.bytes < 3_000_000
        assert sent.new_files <= 3
        second.end()
    finally:
        stop_engine(home)
