from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kaos_backend.engine.workers.choice import choose
from kaos_backend.engine.workers.pair import Pair
from kaos_backend.engine.workers.port import DatumRun, Exit, Grant, Worker, WorkerSpec
from tests.support.docker_engine import engine_or_skip

from .images import DockerImages, FolderImages, Images


@dataclass
class Bench:
    """A runtime with an engine folder of its own, and short ways to run things on it."""

    runtime: Pair
    engine_dir: Path
    images: Images
    workers: list[Worker] = field(default_factory=list)
    runs: int = 0

    def image(
        self, files: Mapping[str, str], workdir: str = "/app", env: Mapping[str, str] | None = None
    ) -> str:
        return self.images.make(files, workdir, env or {})

    def worker(self, image: str = "", env: Mapping[str, str] | None = None, **changes: Any) -> Worker:
        values: dict[str, Any] = {"user": "", "working_dir": None} | changes
        worker = self.runtime.start_worker(WorkerSpec("w", image or self.images.base, env or {}, **values))
        self.workers.append(worker)
        return worker

    def datum(self, script: str = "", **changes: Any) -> DatumRun:
        self.runs += 1
        out = self.engine_dir / f"out{self.runs}"
        out.mkdir()
        values: dict[str, Any] = {
            "cmd": ("sh",),
            "stdin": script.encode() + b"\n",
            "env": {},
            "inputs": {},
            "input_paths": {},
            "out": out,
            "log": self.engine_dir / f"log{self.runs}",
            "grant": Grant(1.0, (), None, ()),
            "timeout_s": 60.0,
        }
        return DatumRun(**(values | changes))

    def run(self, script: str = "", worker: Worker | None = None, **changes: Any) -> tuple[Exit, str]:
        run = self.datum(script, **changes)
        exit_ = (worker or self.worker()).run(run, threading.Event())
        return exit_, text_of(run.log)


def launcher_request(argv: Sequence[str], log: Path, **changes: Any) -> dict[str, Any]:
    """What a launcher is asked to run: without a sandbox, limits or a terminal, unless `changes` say so."""
    request: dict[str, Any] = {"argv": list(argv), "env": {}, "cwd": "/", "stdin": "", "log": str(log)}
    request |= {"cores": [], "groups": []}
    return request | dict.fromkeys(("sandbox", "memory", "ooms", "tty", "timeout")) | changes


def collected(exit_: Exit) -> dict[str, bytes]:
    """path → content of what a run left; what it only linked to reads as `@input:path`."""
    assert exit_.output is not None
    try:
        return {
            file.path: f"@{file.origin.name}:{file.origin.path}".encode() if file.origin else file.data.read()
            for file in exit_.output.files()
        }
    finally:
        exit_.output.close()


def text_of(log: Path) -> str:
    """What the user's code printed, without the stamps."""
    lines = log.read_bytes().decode("utf-8").split("\n") if log.exists() else []
    return "\n".join(line.split(" ", 2)[2] for line in lines if line and line.split(" ", 2)[1] == "u")


def until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        pause.wait(0.005)


def named(name: str) -> list[int]:
    """Host process ids of the processes started as `sleep <name>`."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if (folder / "cmdline").read_bytes() == b"sleep\0" + name.encode() + b"\0":
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def engine_with_a_trial(engine: Path, runtime: str, image: str, mark: str) -> subprocess.Popen[bytes]:
    """A process with an engine of its own, in the folder `engine`, whose trial runs: two `sleep <mark>`.

    `runtime`: the expression that makes the engine's runtime in the folder `e`.
    """
    engine.mkdir(parents=True)
    code = f"""
import os, threading
from pathlib import Path
from kaos_backend.engine.workers.docker.runtime import DockerRuntime
from kaos_backend.engine.workers.port import *
from kaos_backend.engine.workers.process.runtime import ProcessRuntime
e = Path({str(engine)!r})
(e / "out").mkdir()
runtime = {runtime}
w = runtime.start_worker(WorkerSpec("w", {image!r}, {{}}, "", None))
script = b"setsid sleep {mark} & echo up; sleep {mark}\\n"
grant = Grant(1, (), None, ())
w.run(DatumRun(("sh",), script, {{}}, {{}}, {{}}, e / "out", e / "log", grant, None), threading.Event())
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[4])
    until(lambda: text_of(engine / "log") == "up" and len(named(mark)) == 2, "the trial to start")
    return process


@dataclass(frozen=True)
class Kind:
    """One kind of runtime with its builder, as the contract suite is run over it."""

    name: str
    env: Mapping[str, str]
    needs: str = "sh"  # a program; "docker": an engine that answers

    def pair(self, engine_dir: Path, home: Path) -> Pair:
        return choose({**os.environ, "KAOS_RUNTIME": "process", **self.env}, engine_dir, home)

    def images(self, engine_dir: Path) -> Images:
        """Skips the test by name where this kind cannot run."""
        if self.needs == "docker":
            return DockerImages(engine_or_skip())
        if shutil.which(self.needs) is None:
            pytest.skip(f"{self.needs} is not installed")
        return FolderImages(engine_dir)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("process-bubblewrap", {"KAOS_ENGINE_ISOLATION": "bubblewrap"}, "bwrap"),
        Kind("process-bare", {"KAOS_ENGINE_ISOLATION": "none"}),
        Kind("process-sampled", {"KAOS_ENGINE_ISOLATION": "none", "KAOS_ENGINE_LIMITS": "sampling"}),
        Kind("docker", {"KAOS_RUNTIME": "docker"}, "docker"),
    )
}


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Every kind of runtime; one whose program is missing is skipped (CI installs them all)."""
    yield from _bench(tmp_path, KINDS[request.param])


@pytest.fixture(params=[kind for kind in KINDS if kind.startswith("process")])
def processes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """The kinds of the process runtime."""
    yield from _bench(tmp_path, KINDS[request.param])


@pytest.fixture
def sandboxed(tmp_path: Path) -> Iterator[Bench]:
    yield from _bench(tmp_path, KINDS["process-bubblewrap"])


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Bench]:
    yield from _bench(tmp_path, KINDS["process-bare"])


@pytest.fixture
def docked(tmp_path: Path) -> Iterator[Bench]:
    yield from _bench(tmp_path, KINDS["docker"])


def _bench(tmp_path: Path, kind: Kind) -> Iterator[Bench]:
    engine_dir = tmp_path / "home" / "engine"
    engine_dir.mkdir(parents=True)
    (tmp_path / "home" / "token").write_text("secret")
    images = kind.images(engine_dir)
    bench = Bench(kind.pair(engine_dir, tmp_path / "home"), engine_dir, images)
    yield bench
    for worker in bench.workers:
        worker.close()
    images.close()
    assert list((engine_dir / "scratch" / "workers").iterdir()) == []
