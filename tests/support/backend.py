"""The backend's application over a real engine, and an SDK client on the same engine, for tests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import requests
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

from kaos_backend.app import create_app
from kaos_backend.errors import EngineUnavailable
from kaos_backend.server import Server
from kaos_backend.settings import Limits, Settings
from kaos_backend.supervisor import EmbeddedEngine
from kaos_formats.files import read_json
from kaos_formats.home import Home, Running, own_socket
from tests.support.archives import archive, tree_of
from tests.support.home import alive
from tests.support.waiting import eventually

# The smallest thing that trains: a metric that follows from the parameters, a log line, a data file's
# content.
TRAIN = b"""#!/bin/sh
echo "training with $(cat "$KAOS_PARAMS")"
if grep -q '"fail":true' "$KAOS_PARAMS"; then echo "failing as told" >&2; exit 3; fi
cat "$KAOS_DATA_DIR"/* > "$1/data.txt"
echo "$KAOS_MODEL_ID" >> "${COUNT_FILE:-/dev/null}"
lr=$(sed 's/.*"lr":\\([0-9.]*\\).*/\\1/' "$KAOS_PARAMS")
case $lr in [0-9]*) ;; *) lr=0 ;; esac
echo "{\\"accuracy\\": $lr, \\"nested\\": {\\"loss\\": 1}}" > "$1/metrics.json"
"""
DOCKERFILE = b"FROM python:3.11\nWORKDIR /app\nCOPY . /app/\nRUN chmod +x train\n"
SOURCE: Mapping[str, bytes] = {"Dockerfile": DOCKERFILE, "train": TRAIN}
ZSTD = {"Content-Type": "application/zstd"}
LIMITS = Limits()
DATA: Mapping[str, bytes] = {"a.txt": b"alpha\n", "sub/b.txt": b"beta\n"}


class Backend:
    """One application, served by uvicorn in a thread, with its engine; requests carry the token."""

    def __init__(
        self, home: Path, limits: Limits = LIMITS, engine: str | None = None, token: str = ""
    ) -> None:
        """``engine``: the address of somebody else's, and ``token`` what it asks for."""
        home.mkdir(mode=0o700, exist_ok=True)
        self.home = home
        self.app = create_app(
            Settings(home=Home(home), limits=limits, engine_address=engine, engine_token=token)
        )
        self.token = (home / "token").read_text().strip()
        self._socket = socket.create_server(("127.0.0.1", 0))
        place = own_socket(Home(home), "backend")
        self._local = socket.socket(socket.AF_UNIX)
        self.place = str(place)
        self._local.bind(self.place)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        self._server = Server(self.app, limits, timeout_graceful_shutdown=1)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket, self._local]}, daemon=True
        )
        self.http = requests.Session()
        self.http.trust_env = False
        self.http.headers["Authorization"] = f"Bearer {self.token}"

    def start(self) -> None:
        self._thread.start()
        eventually(lambda: self._server.started)

    def request(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """What is put is a bundle, unless ``headers`` say otherwise."""
        if method == "PUT":
            kwargs.setdefault("headers", ZSTD)
        return self.http.request(method, f"{self.url}/{path.lstrip('/')}", timeout=60, **kwargs)

    def call(self, method: str, path: str, status: int = 200, **kwargs: Any) -> Any:
        """The JSON answer of a request that must have ``status``."""
        response = self.request(method, path, **kwargs)
        assert response.status_code == status, f"{response.status_code}: {response.text}"
        return response.json()

    def error(self, method: str, path: str, status: int, code: str, **kwargs: Any) -> Any:
        """The error of a request that must fail like this."""
        answer = self.call(method, path, status, **kwargs)["error"]
        assert answer["code"] == code, answer
        assert answer["message"]
        return answer

    def sdk(self) -> Client:
        """A stranger's client."""
        info = read_json(self.home / "engine.json")
        return Client(host=info["host"], port=info["port"], auth_token=self.token)

    def put(self, workspace: str, kind: str, files: Mapping[str, bytes], name: str = "bundle") -> str:
        """Uploads a bundle and returns its id."""
        bundle_id, body = archive(files)
        self.call(
            "PUT",
            f"/workspaces/{workspace}/bundles/{kind}/{bundle_id}",
            201,
            params={"name": name},
            data=body,
        )
        return bundle_id

    def deploy(self, workspace: str, status: int = 200, **body: Any) -> Any:
        return self.call(
            "POST", f"/workspaces/{workspace}/deploys", status, json={"author": "me@test", **body}
        )

    def deploy_all(self, workspace: str, hyper: Any = None, **more: Any) -> Any:
        """Uploads and deploys the little source and data."""
        source = self.put(workspace, "source", SOURCE, "little")
        data = self.put(workspace, "data", DATA, "letters")
        return self.deploy(workspace, source=source, data=data, hyper=hyper, **more)

    def workspace(self, name: str) -> str:
        self.call("POST", "/workspaces", 201, json={"name": name, "description": ""})
        return name

    def wait(self, workspace: str, job: str = "last", timeout_s: float = 60) -> Any:
        """The job when it has ended."""
        path = f"/workspaces/{workspace}/jobs/{job}"
        ended = eventually(
            lambda: (found := self.call("GET", f"{path}/summary"))["finished"] and found,
            f"job {job} of {workspace} ends",
            timeout_s,
        )
        return self.call("GET", f"/workspaces/{workspace}/jobs/{ended['id']}")

    def close(self) -> None:
        self.http.close()
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()
        self._local.close()
        engine = self.app.state.services.engine
        if not isinstance(engine, EmbeddedEngine):
            return
        # One that is on its way up is waited for, and none comes after it: either would outlive the test.
        with engine._guard:
            engine._start = _closed  # type: ignore[method-assign]
            stop_engine(self.home)
            assert not engine.lives()


def _closed() -> Running:
    raise EngineUnavailable("the test has closed this backend", hint="")


@contextlib.contextmanager
def running_backend(home: Path, limits: Limits = LIMITS) -> Iterator[Backend]:
    """A backend in ``home``; its engine is gone afterwards."""
    backend = Backend(home, limits)
    try:
        backend.start()
        yield backend
    finally:
        backend.close()


def stop_engine(home: Path, how: signal.Signals = signal.SIGKILL) -> None:
    """Ends the engine of a home, if one runs, and waits until it is gone."""
    pid = read_json(home / "engine.json").get("pid")
    if not isinstance(pid, int):
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)
    eventually(lambda: _gone(pid), timeout_s=10)


def _gone(pid: int) -> bool:
    """Whether a process has ended with all its threads (a zombie's leader may die before them)."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        # Somebody else's, who may take a while to ask how it ended.
        return not alive(pid) and _threads(pid) <= 1


def _threads(pid: int) -> int:
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    except FileNotFoundError:
        return 0


def repo(workspace: str, name: str) -> pfs.Repo:
    return pfs.Repo(name=name, type="user", project=pfs.Project(name=workspace))


def traces(client: Client, workspace: str) -> dict[str, Any]:
    """All that an upload or deploy could leave in a workspace: branches, commits, jobs."""
    found: dict[str, Any] = {}
    for info in client.pfs.list_repo(type="user", projects=[pfs.Project(name=workspace)]):
        commits = list(client.pfs.list_commit(repo=info.repo, all=True))
        branches = list(client.pfs.list_branch(repo=info.repo))
        if commits or branches:
            found[info.repo.name] = (
                sorted(b.branch.name for b in branches),
                sorted((c.commit.id, c.finished.timestamp() > 0) for c in commits),
            )
    found["jobs"] = sorted(
        j.job.id for j in client.pps.list_job(projects=[pfs.Project(name=workspace)], history=-1)
    )
    return found


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


__all__ = [
    "DATA",
    "SOURCE",
    "Backend",
    "lines",
    "repo",
    "running_backend",
    "stop_engine",
    "traces",
    "tree_of",
]
