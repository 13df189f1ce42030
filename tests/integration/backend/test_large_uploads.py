"""One large file on its way over a network goes on within, whoever broke off; the whole is verified."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kaos_backend.engine.store.bytes.partial import KEEP_S
from kaos_backend.services.bundles import DEAD_S
from kaos_backend.services.staging import upload_key
from kaos_backend.settings import Limits
from kaos_cli import upload
from kaos_cli.errors import KaosError
from kaos_cli.transport import READ_TIMEOUT_S
from tests.support.archives import archive, tree_of
from tests.support.backend import Backend, stop_engine, traces
from tests.support.process import Process
from tests.support.waiting import eventually
from tests.support.wire import OVERHEAD, lay_out, noise, send, stored, wire

SIZE = 17_500_000
CUT = 9_000_000
# What is unpacked at a time and may be lost.
CHUNK = 1 << 20


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "PAUSES_S", (0.0, 0.0, 0.0))


def begun(home: Path) -> list[Path]:
    """The half files that the engine keeps."""
    return list((home / "engine" / "partial").iterdir())


def broken_off(backend: Backend, workspace: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An upload that is given up within a file; what is kept of that."""
    with monkeypatch.context() as patched, wire(backend.url, cut_after=CUT) as way:
        patched.setattr(upload, "PAUSES_S", ())
        with pytest.raises(KaosError) as caught:
            send(way, backend.token, workspace, folder)
    assert caught.value.code == "connection_lost"
    # Nothing tells that the backend has put it in its place but this, as any client would ask.
    sizes = {one.hash: one.size for one in tree_of(read(folder)).entries}
    path = f"/workspaces/{workspace}/bundles/data/{tree_of(read(folder)).id}/missing"
    answer = eventually(
        lambda: (found := backend.call("POST", path, json={"objects": sizes}))["begun"] and found
    )
    [(name, size)] = answer["begun"].items()
    assert CUT - 2 * CHUNK - OVERHEAD < size < CUT
    assert answer["missing"] == [name]
    half = backend.home / "engine" / "partial" / name
    assert half.stat().st_size == size
    return half


def begin(
    connection: socket.socket, token: str, workspace: str, files: dict[str, bytes], length: int
) -> None:
    """Sends so much of an upload."""
    bundle_id, body = archive(files)
    connection.sendall(
        f"PUT /v1/workspaces/{workspace}/bundles/data/{bundle_id}?name=d HTTP/1.1\r\n"
        f"Host: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/zstd\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body[:length]
    )


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_connection_that_is_cut_within_a_file(backend: Backend, workspace: str, tmp_path: Path) -> None:
    files = noise(1, SIZE)
    with wire(backend.url, cut_after=CUT) as way:
        sent = send(way, backend.token, workspace, lay_out(tmp_path / "d", files))
        assert SIZE < way.bytes < SIZE + CHUNK + OVERHEAD
    assert (sent.new_files, sent.new_bytes) == (1, SIZE)
    stored(backend, workspace, files)
    assert not begun(backend.home)


def test_an_engine_that_is_killed_within_a_file(
    backend: Backend, workspace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"before-{path}": data for path, data in noise(5, 100_000).items()} | noise(1, SIZE)
    folder = lay_out(tmp_path / "d", files)
    half = broken_off(backend, workspace, folder, monkeypatch)
    stop_engine(backend.home)
    assert '"end"' in backend.request("POST", "/collect", json={"dry_run": False}).text
    # In another bundle, and in another workspace.
    (folder / "more").write_bytes(b"more")
    other = backend.workspace(f"{workspace}-other")
    with wire(backend.url) as way:
        rest = SIZE - half.stat().st_size
        send(way, backend.token, other, folder)
        assert rest < way.bytes < rest + OVERHEAD
    stored(backend, other, files | {"more": b"more"})


def test_half_a_file_that_is_damaged_is_noticed_and_sent_anew(
    backend: Backend, workspace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = noise(1, SIZE)
    folder = lay_out(tmp_path / "d", files)
    half = broken_off(backend, workspace, folder, monkeypatch)
    with half.open("r+b") as file:
        file.seek(1000)
        file.write(bytes(100))
    with wire(backend.url) as way, pytest.raises(KaosError, match="not what the file list says"):
        send(way, backend.token, workspace, folder)
    assert not begun(backend.home)
    assert traces(backend.sdk(), workspace) == {"jobs": []}
    with wire(backend.url) as way:
        send(way, backend.token, workspace, folder)
    stored(backend, workspace, files)


def test_half_a_file_that_nobody_goes_on_with_is_given_back(
    backend: Backend, workspace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = broken_off(backend, workspace, lay_out(tmp_path / "d", noise(1, SIZE)), monkeypatch)
    # Nothing else of it is there.
    assert traces(backend.sdk(), workspace) == {"jobs": []}
    size = half.stat().st_size
    assert backend.call("GET", "/disk")["shared"]["data"] >= size
    for age_s, is_there in ((KEEP_S - 60, True), (KEEP_S + 60, False)):
        os.utime(half, (time.time() - age_s,) * 2)
        told = backend.request("POST", "/collect", json={"dry_run": True}).text
        assert half.exists()
        assert (f'"freed_bytes":{size}' in told.replace(" ", "")) is not is_there
        backend.request("POST", "/collect", json={"dry_run": False})
        assert half.exists() is is_there


def test_a_connection_that_is_dead_is_waited_for(backend: Backend, workspace: str, tmp_path: Path) -> None:
    """Nobody may tell the backend that it is; until it is cut off its half belongs to it."""
    assert Limits().stall_s < DEAD_S < READ_TIMEOUT_S
    files = noise(1, SIZE)
    folder = lay_out(tmp_path / "d", files)
    key = upload_key(workspace, "data", tree_of(files).id)
    waiting = backend.app.state.services.recovery._locks._locks
    place = urlsplit(backend.url)
    with socket.create_connection((place.hostname, place.port)) as connection:
        begin(connection, backend.token, workspace, files, CUT)
        eventually(lambda: any(path.stat().st_size > CUT - 2 * CHUNK for path in begun(backend.home)))

        def cut_off() -> None:
            eventually(lambda: waiting[key][1] > 1)
            connection.shutdown(socket.SHUT_RDWR)

        thread = threading.Thread(target=cut_off)
        thread.start()
        with wire(backend.url) as way:
            send(way, backend.token, workspace, folder)
            assert way.bytes < SIZE - CUT + 2 * CHUNK + OVERHEAD
        thread.join()
    stored(backend, workspace, files)


def test_what_is_not_there_is_not_gone_on_with(backend: Backend, workspace: str) -> None:
    files = noise(1, SIZE)
    bundle_id, body = archive(files, offset=5_000_000)
    path = f"/workspaces/{workspace}/bundles/data/{bundle_id}"
    told = backend.error("PUT", path, 409, "stale_offset", params={"name": "d"}, data=body)
    assert told["fields"]["held"] == 0
    assert traces(backend.sdk(), workspace) == {"jobs": []}


def test_a_backend_that_is_killed_within_a_file(tmp_path: Path) -> None:
    home = tmp_path / "home"
    files = noise(4, 1_000_000) | {"large": os.urandom(SIZE)}
    first = Process(home).wait()
    try:
        place, token = urlsplit(first.url), (home / "token").read_text().strip()
        with socket.create_connection((place.hostname, place.port)) as connection:
            begin(connection, token, "default", files, 4_000_000 + CUT)
            eventually(lambda: any(path.stat().st_size > CUT - 2 * CHUNK for path in begun(home)))
            first.end(signal.SIGKILL)
        second = Process(home).wait()
        with wire(second.url) as way:
            sent = send(way, token, "default", lay_out(tmp_path / "d", files))
            assert way.bytes < SIZE - (CUT - 2 * CHUNK) + OVERHEAD
        assert (sent.new_files, sent.new_bytes) == (1, SIZE)
        second.end()
    finally:
        stop_engine(home)


def test_a_content_travels_once(backend: Backend, workspace: str, tmp_path: Path) -> None:
    twins = noise(2, 300_000)
    files = {f"{path}-{n}": data for path, data in twins.items() for n in range(5)}
    files |= {f"empty-{n}": b"" for n in range(3)}
    with wire(backend.url) as way:
        sent = send(way, backend.token, workspace, lay_out(tmp_path / "d", files))
        assert 600_000 < way.bytes < 600_000 + OVERHEAD
    assert (sent.new_files, sent.new_bytes) == (13, 3_000_000)
    stored(backend, workspace, files)
