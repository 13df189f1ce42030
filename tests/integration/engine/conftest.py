"""A real engine, in this process or in one of its own, and a pachyderm-sdk client of it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps

from kaos_backend.engine.jobs.schedule.machine import Machine
from kaos_backend.engine.main import EngineHandle, start
from kaos_backend.engine.workers.port import Runtime
from kaos_backend.engine.workers.process.runtime import ProcessRuntime
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[3]
MACHINE = Machine(cpus=2, memory_bytes=4 << 30, gpus=0)


class Engine:
    """What the tests do to an engine, all of it through the SDK."""

    def __init__(self, client: Client, side: Path, handle: EngineHandle | None = None) -> None:
        self.client = client
        self.handle = handle
        # Where user code leaves marks that the engine knows nothing of.
        self.side = side
        side.mkdir(exist_ok=True)

    def repo(self, name: str, files: dict[str, bytes] | None = None) -> pfs.Repo:
        repo = pfs.Repo(name=name, type="user", project=pfs.Project(name="default"))
        self.client.pfs.create_repo(repo=repo)
        if files is not None:
            self.put(name, files)
        return repo

    def put(self, repo: str, files: dict[str, bytes]) -> str:
        """One commit on master with these files on top; its id."""
        with self.client.pfs.commit(branch=pfs.Branch.from_uri(f"{repo}@master")) as commit:
            for path, content in files.items():
                commit.put_file_from_bytes(path, content)
        return str(commit.id)

    def pipeline(
        self,
        name: str,
        script: str,
        inputs: dict[str, str],
        *,
        update: bool = False,
        reprocess: bool = False,
        err: bool = False,
        **more: Any,
    ) -> pps.Pipeline:
        """A pipeline that runs a shell script, output `$OUT`, over the cross of `inputs` (repo → glob)."""
        nodes = [pps.Input(pfs=pps.PfsInput(repo=repo, glob=glob)) for repo, glob in inputs.items()]
        pipeline = pps.Pipeline(name=name, project=pfs.Project(name="default"))
        self.client.pps.create_pipeline(
            pipeline=pipeline,
            transform=pps.Transform(
                cmd=["sh"],
                stdin=["set -e", 'OUT="${PACH_PFS:-/pfs}/out"', *script.strip().splitlines()],
                env={"SIDE": str(self.side)},
                err_cmd=["true"] if err else [],
            ),
            input=nodes[0] if len(nodes) == 1 else pps.Input(cross=nodes),
            update=update,
            reprocess=reprocess,
            **{"datum_tries": 1, "parallelism_spec": pps.ParallelismSpec(constant=2), **more},
        )
        return pipeline

    def last_job(self, pipeline: str) -> pps.JobInfo:
        return next(
            iter(self.client.pps.list_job(pipeline=pps.Pipeline(name=pipeline), history=-1, number=1)), None
        )

    def wait(self, pipeline: str, id: str = "", details: bool = False) -> pps.JobInfo:
        """The job (the newest by default) when it has ended."""
        job = pps.Job(pipeline=pps.Pipeline(name=pipeline), id=id or self.last_job(pipeline).job.id)
        return self.client.pps.inspect_job(job=job, wait=True, details=details)

    def job_when(self, pipeline: str, state: pps.JobState, id: str = "") -> pps.JobInfo:
        """The newest job as soon as it is in `state`."""

        def look() -> pps.JobInfo | None:
            info = self.last_job(pipeline)
            return info if info and info.state == state and id in ("", info.job.id) else None

        return eventually(look, f"{pipeline} is {state.name}")

    def files(self, repo: str, ref: str = "master") -> dict[str, bytes]:
        """path → content of every file of a commit."""
        commit = pfs.Commit(repo=pfs.Repo(name=repo, type="user"), id=ref)
        found = {}
        for info in self.client.pfs.walk_file(file=pfs.File(commit=commit, path="/")):
            if info.file_type == pfs.FileType.FILE:
                with self.client.pfs.pfs_file(pfs.File(commit=commit, path=info.file.path)) as file:
                    found[info.file.path] = file.read()
        return found

    def runs(self, name: str = "runs") -> list[str]:
        """The lines that user code appended to a file of that name in `$SIDE`."""
        path = self.side / name
        return sorted(path.read_text().splitlines()) if path.exists() else []

    def ran(self, name: str) -> Any:
        """Wait until user code made the file `name` in `$SIDE`."""
        return eventually((self.side / name).exists, f"user code makes {name}")


@pytest.fixture
def engine_on(tmp_path: Path) -> Iterator[Callable[[Callable[[], Runtime]], Engine]]:
    """Starts an engine in this process with a runtime; another one of the same test takes over its home."""
    handles: list[EngineHandle] = []

    def begin(runtime: Callable[[], Runtime]) -> Engine:
        for handle in handles:
            handle.stop()
        token = secrets.token_hex(8)
        handle = start(tmp_path / "engine", "127.0.0.1", 0, token, runtime(), MACHINE)
        handles[:] = [handle]
        host, _, port = handle.address.rpartition(":")
        return Engine(Client(host=host, port=int(port), auth_token=token), tmp_path / "side", handle)

    yield begin
    for handle in handles:
        handle.stop()


@pytest.fixture
def engine(engine_on: Callable[[Callable[[], Runtime]], Engine], tmp_path: Path) -> Engine:
    return engine_on(partial(ProcessRuntime, tmp_path / "engine", isolate=False))


class EngineProcess:
    """`python -m kaos_backend.engine` as its own process, which can be killed and started again."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process: subprocess.Popen[bytes] | None = None

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "kaos_backend.engine", "--home", str(self.home)],
            cwd=ROOT,
            env={
                **os.environ,
                "KAOS_ENGINE_CPUS": "2",
                "KAOS_ENGINE_MEMORY": "4Gi",
                # A sandbox would hide what user code writes to $SIDE.
                "KAOS_ENGINE_ISOLATION": "none",
            },
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def run_to_end(self) -> int:
        return self._spawn().wait(20)

    def start(self, keep_info: bool = False) -> Engine:
        info = self.home / "engine.json"
        if not keep_info:
            info.unlink(missing_ok=True)
        self.process = process = self._spawn()

        def serves() -> bool:
            found = json.loads(info.read_text())["pid"] == process.pid if info.exists() else False
            return found or process.poll() is not None

        eventually(serves, "the engine serves")
        assert process.poll() is None, (self.home / "logs" / "engine.log").read_text()
        found = json.loads(info.read_text())
        token = (self.home / "token").read_text().strip()
        return Engine(
            Client(host=found["host"], port=found["port"], auth_token=token), self.home.parent / "side"
        )

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(20)


@pytest.fixture
def engine_process(tmp_path: Path) -> Iterator[EngineProcess]:
    process = EngineProcess(tmp_path / "home")
    yield process
    if process.process is not None and process.process.poll() is None:
        process.kill()
