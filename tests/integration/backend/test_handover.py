"""Folders handed over on the backend's Unix socket: who may, and what becomes of them."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from pachyderm_sdk.api import pfs

from kaos_backend import __version__
from kaos_formats import kaos_v1
from kaos_formats.handover import File, Folder, lines, paths_line
from kaos_formats.home import Home
from tests.support.archives import tree_of
from tests.support.backend import DATA, SOURCE, Backend, repo, traces

NAMES = {"Größe (1).csv": b"1", "a%b/x*": b"22", "a%b/y": b"", "plain": b"333"}


def lay_out(top: Path, files: Mapping[str, bytes]) -> Path:
    for path, data in files.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(data)
    return top


def listing(
    top: Path, hashes: Mapping[str, str] = {}, only: Container[str] | None = None, gone: Iterable[str] = ()
) -> bytes:
    """The body of a request; with ``only``, of these paths after those that are ``gone``."""
    files = []
    for path in sorted(str(p.relative_to(top)) for p in top.rglob("*") if p.is_file()):
        if only is not None and path not in only:
            continue
        status = (top / path).stat()
        times = status.st_mtime_ns, status.st_ctime_ns
        files.append(File(path, status.st_size, *times, status.st_ino, hash=hashes.get(path, "")))
    folder = Folder.of(top)
    head = json.dumps({"path": folder.path, "device": folder.device, "inode": folder.inode}).encode()
    first = b"" if only is None else paths_line(gone)
    return head + b"\n" + first + b"".join(lines(files))


def hand_over(
    backend: Backend, workspace: str, body: bytes, kind: str = "data", base: str = ""
) -> list[dict[str, Any]]:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(backend.place)
    path = f"/v1/workspaces/{workspace}/bundles/{kind}?name=x" + (f"&base={base}" if base else "")
    connection.request("POST", path, body, headers(backend))
    response = connection.getresponse()
    answer = [json.loads(line) for line in response.read().splitlines()]
    connection.close()
    return answer


def change(
    backend: Backend, workspace: str, top: Path, before: Mapping[str, bytes], now: Mapping[str, bytes]
) -> dict[str, Any]:
    """Hand over, in a folder of its own, how ``now`` differs from the bundle of ``before``: the last line."""
    differs = {path for path, data in now.items() if before.get(path) != data}
    body = listing(lay_out(top, now), only=differs, gone=sorted(before.keys() - now.keys()))
    return hand_over(backend, workspace, body, base=tree_of(before).id)[-1]


def headers(backend: Backend) -> dict[str, str]:
    token = Home(backend.home).token_file.read_text().strip()
    return {
        "Authorization": f"Bearer {token}",
        "X-Kaos-Version": __version__,
        "Content-Type": "application/x-ndjson",
    }


@pytest.mark.parametrize("files", [DATA, NAMES])
def test_it_is_the_bundle_that_would_be_sent(
    backend: Backend, workspace: str, tmp_path: Path, files: Mapping[str, bytes]
) -> None:
    body = listing(lay_out(tmp_path / "folder", files))
    tree = tree_of(files)
    answer = hand_over(backend, workspace, body)
    assert answer[-1]["end"]
    stored = answer[-1]["bundle"]
    assert (stored["id"], stored["files"], stored["new_files"], stored["known"]) == (
        tree.id, len(files), len([one for one in files.values() if one]), False,
    )  # fmt: skip
    hashes = "".join(line.get("hashes", "") for line in answer)
    assert hashes == "".join(entry.hash for entry in tree.entries)
    backend.deploy(workspace, data=tree.id)
    assert backend.request("GET", f"/workspaces/{workspace}/bundles/data/head/tree").content == tree.text
    # What is sent has the same commit, to the last byte.
    other = backend.workspace(f"{workspace}-sent")
    backend.deploy(other, data=backend.put(other, "data", files))
    assert walked(backend, workspace) == walked(backend, other)
    assert hand_over(backend, workspace, body)[-1]["bundle"]["known"]


OLD = {"a": b"1", "b/c": b"2", "b/d": b"3", "e/f/g": b"4" * 2_000_000}


@pytest.mark.parametrize(
    "now",
    [
        OLD | {"a": b"other"},
        OLD | {"a": b"", "b/c": OLD["b/d"], "new/one": b"5", "b/d0": b"6", "e/f/g": b"7" * 3_000_000},
        {"a/b": b"8", "b": b"9", "e/f/g": OLD["e/f/g"]},
        {"a": b"1", "z": b"only these"},
    ],
    ids=["a file", "files", "files that become folders, and folders files", "next to nothing is left"],
)
def test_what_has_changed_makes_the_bundle_that_would_be_sent(
    backend: Backend, workspace: str, tmp_path: Path, now: Mapping[str, bytes]
) -> None:
    backend.deploy(workspace, data=backend.put(workspace, "data", OLD))
    stored = change(backend, workspace, tmp_path / "now", OLD, now)["bundle"]
    assert (stored["id"], stored["files"], stored["bytes"]) == (
        tree_of(now).id, len(now), sum(map(len, now.values())),
    )  # fmt: skip
    backend.deploy(workspace, data=stored["id"])
    other = backend.workspace(f"{workspace}-sent")
    backend.deploy(other, data=backend.put(other, "data", now))
    assert walked(backend, workspace) == walked(backend, other)
    # It is built on what is current alone.
    refused = change(backend, workspace, tmp_path / "again", OLD, now | {"a9": b"9"})
    assert refused["error"]["code"] == "stale_base"


@pytest.mark.parametrize(
    ("gone", "now", "code"),
    [
        (["x"], {"a": b"2"}, "invalid_bundle"),
        ([], {"b": b"a file where a folder is"}, "invalid_bundle"),
        ([], {"a/b": b"a folder where a file is"}, "invalid_bundle"),
        ([], {"*": b"1"}, "stale_base"),
    ],
)
def test_what_cannot_be_a_change(
    backend: Backend, workspace: str, tmp_path: Path, gone: list[str], now: Mapping[str, bytes], code: str
) -> None:
    backend.deploy(workspace, data=backend.put(workspace, "data", OLD))
    before = traces(backend.sdk(), workspace)
    body = listing(lay_out(tmp_path / "now", now), only=now, gone=gone)
    [answer] = hand_over(backend, workspace, body, base=tree_of(OLD).id)
    assert answer["error"]["code"] == code
    assert traces(backend.sdk(), workspace) == before


def walked(backend: Backend, workspace: str) -> list[tuple[str, bytes]]:
    commit = pfs.Commit(repo=repo(workspace, "data"), id="master")
    return [
        (f.file.path, f.hash) for f in backend.sdk().pfs.walk_file(file=pfs.File(commit=commit, path="/"))
    ]


def test_a_file_that_changed_is_named_and_nothing_is_left(
    backend: Backend, workspace: str, tmp_path: Path
) -> None:
    top = lay_out(tmp_path / "folder", DATA)
    body = listing(top)
    (top / "a.txt").write_bytes(b"other")
    before = traces(backend.sdk(), workspace)
    error = hand_over(backend, workspace, body)[-1]["error"]
    assert error["code"] == "changed"
    assert "a.txt" in error["message"]
    assert traces(backend.sdk(), workspace) == before


def test_a_collection_takes_nothing_of_what_is_handed_over(backend: Backend, tmp_path: Path) -> None:
    """What nothing refers to: a file set before its commit, and content that is known from a bundle that has
    gone, and so is not read again.
    """
    files = {f"small/{n}": os.urandom(30_000) for n in range(5)} | {"large": os.urandom(1_500_000)}
    top = lay_out(tmp_path / "folder", files)
    tree = tree_of(files)
    known = {entry.path: entry.hash for entry in tree.entries}
    collected, enough = 0, threading.Event()

    def collect() -> None:
        nonlocal collected
        while not enough.is_set():
            told = requests.post(
                f"{backend.url}/collect",
                json={"dry_run": False},
                headers={"Authorization": f"Bearer {backend.token}"},
                timeout=60,
            )
            assert json.loads(told.text.splitlines()[-1])["end"]
            collected += 1

    collecting = threading.Thread(target=collect)
    collecting.start()
    try:
        sdk = backend.sdk()
        for number in range(6):
            workspace = backend.workspace(f"collected{number}")
            answer = hand_over(backend, workspace, listing(top, known))
            assert answer[-1].get("bundle", answer[-1])["id"] == tree.id
            backend.deploy(workspace, data=tree.id)
            commit = pfs.Commit(repo=repo(workspace, "data"), id="master")
            for path, data in files.items():
                file = pfs.File(commit=commit, path=f"/{tree.id}/{path}")
                with sdk.pfs.pfs_file(file) as opened:
                    assert opened.read() == data
            backend.call("DELETE", f"/workspaces/{workspace}")
    finally:
        enough.set()
        collecting.join()
    assert collected


@pytest.mark.parametrize(
    ("kind", "files", "code"),
    [("source", DATA, "invalid_bundle"), ("data", {"a": b"1", "b": b"2"}, "invalid_bundle")],
)
def test_what_no_bundle_can_be(
    backend: Backend, workspace: str, tmp_path: Path, kind: str, files: Mapping[str, bytes], code: str
) -> None:
    head, *rest = listing(lay_out(tmp_path / "folder", files)).splitlines(keepends=True)
    if kind == "data":
        rest = [rest[0], rest[0]]
    [answer] = hand_over(backend, workspace, head + b"".join(rest), kind)
    assert answer["error"]["code"] == code


def test_over_tcp_nobody_can_tell_who_asks(backend: Backend, workspace: str, tmp_path: Path) -> None:
    body = listing(lay_out(tmp_path / "folder", DATA))
    path = f"/workspaces/{workspace}/bundles/data?name=x"
    sent = headers(backend) | {"X-Forwarded-For": "unix:", "Forwarded": "for=unix:"}
    assert backend.request("POST", path, data=body, headers=sent).json()["error"]["code"] == "no_handover"
    channel = grpc.insecure_channel(backend.sdk().address)
    ingest = channel.stream_stream(kaos_v1.method("Ingest"), bytes, kaos_v1.IngestResponse.FromString)
    token = Home(backend.home).token_file.read_text().strip()
    request = kaos_v1.IngestRequest(folder=Folder.of(tmp_path / "folder"))
    with pytest.raises(grpc.RpcError) as caught:
        list(ingest(iter([request]), metadata=[("authn-token", token)]))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    channel.close()


def export(backend: Backend, workspace: str, into: Path, what: str = "data") -> Any:
    into.mkdir()
    folder = Folder.of(into)
    body = {"what": what, "path": folder.path, "device": folder.device, "inode": folder.inode, "mode": 0o640}
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(backend.place)
    sent = headers(backend) | {"Content-Type": "application/json"}
    path = f"/v1/workspaces/{workspace}/jobs/last/export"
    connection.request("POST", path, json.dumps(body), sent)
    answer = [json.loads(line) for line in connection.getresponse().read().splitlines()]
    connection.close()
    return answer[-1]


@pytest.mark.parametrize("files", [DATA, NAMES])
def test_it_is_written_as_it_was(
    backend: Backend, workspace: str, tmp_path: Path, files: Mapping[str, bytes]
) -> None:
    source, data = backend.put(workspace, "source", SOURCE), backend.put(workspace, "data", files)
    backend.deploy(workspace, source=source, data=data)
    done = export(backend, workspace, tmp_path / "out")
    assert (done["end"], done["files"], done["bytes"]) == (True, len(files), sum(map(len, files.values())))
    top = tmp_path / "out" / done["name"]
    found = {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()}
    assert found == dict(files)
    assert {p.stat().st_mode & 0o777 for p in top.rglob("*") if p.is_file()} == {0o640}
    assert top.stat().st_mode & 0o777 == 0o750
    code = export(backend, workspace, tmp_path / "code", "code")
    assert (tmp_path / "code" / code["name"] / "train").stat().st_mode & 0o777 == 0o755
    # Only for who came by the socket.
    over_tcp = {"what": "data", "path": str(tmp_path), "device": 1, "inode": 1, "mode": 0o644}
    path = f"/workspaces/{workspace}/jobs/last/export"
    backend.error("POST", path, 409, "no_handover", json=over_tcp)


OTHER = """
import http.client, os, socket, sys
place, path, headers, body = sys.argv[1], sys.argv[2], eval(sys.argv[3]), sys.stdin.buffer.read()
os.chdir(os.path.dirname(place))
os.setgroups([])
os.setuid(65534)
connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(os.path.basename(place))
connection.request("POST", path, body, headers)
print(connection.getresponse().read().decode())
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_another_user_is_refused(backend: Backend, workspace: str, tmp_path: Path) -> None:
    body = listing(lay_out(tmp_path / "folder", DATA))
    path = f"/v1/workspaces/{workspace}/bundles/data?name=x"
    command = [sys.executable, "-c", OTHER, backend.place, path, repr(headers(backend))]
    shut = subprocess.run(command, input=body, capture_output=True, check=False)
    assert b"PermissionError" in shut.stderr
    # Even where somebody opened the folder for him, and gave him the token.
    sockets = Path(backend.place).parent
    sockets.chmod(0o755)
    Path(backend.place).chmod(0o777)
    try:
        let_in = subprocess.run(command, input=body, capture_output=True, check=True)
    finally:
        sockets.chmod(0o700)
    assert json.loads(let_in.stdout)["error"]["code"] == "no_handover"
