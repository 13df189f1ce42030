"""A network between command line and backend: bytes are counted, and connections cut."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from pachyderm_sdk.api import pfs

from kaos_cli import upload
from kaos_cli.bundle import list_folder
from kaos_cli.client import KaosClient
from kaos_cli.terminal import Terminal
from kaos_cli.transport import Endpoint, Transport
from tests.support.archives import tree_of
from tests.support.backend import Backend, repo

TERMINAL = Terminal(rich=False, bars=False, colour=False, width=80, quiet=True)
# Requests, file lists, and the small file that was under way.
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


def stored(backend: Backend, workspace: str, files: Mapping[str, bytes]) -> None:
    """Deploys it, and compares every byte."""
    bundle_id = tree_of(files).id
    backend.deploy(workspace, data=bundle_id)
    client = backend.sdk()
    for path, content in files.items():
        commit = pfs.Commit(repo=repo(workspace, "data"), id="master")
        with client.pfs.pfs_file(pfs.File(commit=commit, path=f"/{bundle_id}/{path}")) as opened:
            assert opened.read() == content
