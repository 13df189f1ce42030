from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kaos_backend.engine.workers.choice import choose
from kaos_backend.engine.workers.pair import Pair
from kaos_backend.engine.workers.port import DatumRun, Exit, Grant, Worker, WorkerSpec
from kaos_formats.images import directory_name


@dataclass
class Bench:
    """A runtime with an engine folder of its own, and short ways to run things on it."""

    runtime: Pair
    engine_dir: Path
    workers: list[Worker] = field(default_factory=list)
    runs: int = 0

    def image(
        self, files: Mapping[str, str], workdir: str = "/app", env: Mapping[str, str] | None = None
    ) -> str:
        name = "kaos/test:1"
        folder = self.engine_dir / "images" / directory_name(name)
        (folder / "root" / workdir.strip("/")).mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            file = folder / "root" / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o755)
        config = {"name": name, "workdir": workdir, "env": dict(env or {}), "venv": None, "prefixes": []}
        (folder / "config.json").write_text(json.dumps(config))
        return name

    def worker(self, image: str = "ubuntu:20.04", env: Mapping[str, str] | None = None) -> Worker:
        worker = self.runtime.start_worker(WorkerSpec("w", image, env or {}, "", None))
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


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


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


@dataclass(frozen=True)
class Kind:
    """One kind of runtime with its builder, as the contract suite is run over it."""

    name: str
    env: Mapping[str, str]
    needs: str  # a program

    def pair(self, engine_dir: Path, home: Path) -> Pair:
        return choose(self.env, engine_dir, home)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("process-bubblewrap", {"KAOS_ENGINE_ISOLATION": "bubblewrap"}, "bwrap"),
        Kind("process-bare", {"KAOS_ENGINE_ISOLATION": "none"}, "sh"),
        Kind("process-sampled", {"KAOS_ENGINE_ISOLATION": "none", "KAOS_ENGINE_LIMITS": "sampling"}, "sh"),
    )
}


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Every kind of runtime; one whose program is missing is skipped (CI installs them all)."""
    yield from _bench(tmp_path, KINDS[request.param])


@pytest.fixture
def sandboxed(tmp_path: Path) -> Iterator[Bench]:
    yield from _bench(tmp_path, KINDS["process-bubblewrap"])


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Bench]:
    yield from _bench(tmp_path, KINDS["process-bare"])


def _bench(tmp_path: Path, kind: Kind) -> Iterator[Bench]:
    if shutil.which(kind.needs) is None:
        pytest.skip(f"{kind.needs} is not installed")
    engine_dir = tmp_path / "home" / "engine"
    engine_dir.mkdir(parents=True)
    (tmp_path / "home" / "token").write_text("secret")
    bench = Bench(kind.pair(engine_dir, tmp_path / "home"), engine_dir)
    yield bench
    for worker in bench.workers:
        worker.close()
    assert list((engine_dir / "scratch" / "workers").iterdir()) == []
