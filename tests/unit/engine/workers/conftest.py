from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kaos_backend.engine.workers.images import directory_name
from kaos_backend.engine.workers.port import DatumRun, Exit, Grant, WorkerSpec
from kaos_backend.engine.workers.process import ProcessRuntime, ProcessWorker

HAS_BWRAP = ProcessRuntime.__module__ and shutil.which("bwrap") is not None


@dataclass
class Bench:
    """A runtime with an engine folder of its own, and short ways to run things on it."""

    runtime: ProcessRuntime
    engine_dir: Path
    workers: list[ProcessWorker] = field(default_factory=list)
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

    def worker(self, image: str = "ubuntu:20.04", env: Mapping[str, str] | None = None) -> ProcessWorker:
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

    def run(self, script: str = "", worker: ProcessWorker | None = None, **changes: Any) -> tuple[Exit, str]:
        run = self.datum(script, **changes)
        exit_ = (worker or self.worker()).run(run, threading.Event())
        return exit_, text_of(run.log)


def text_of(log: Path) -> str:
    """What the user's code printed, without the stamps."""
    lines = log.read_bytes().decode("utf-8").split("\n") if log.exists() else []
    return "\n".join(line.split(" ", 2)[2] for line in lines if line and line.split(" ", 2)[1] == "u")


@pytest.fixture(params=["bubblewrap", "none"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Both kinds of isolation; the sandboxed half needs bubblewrap, which CI installs."""
    yield from _bench(tmp_path, request.param == "bubblewrap")


@pytest.fixture
def sandboxed(tmp_path: Path) -> Iterator[Bench]:
    yield from _bench(tmp_path, True)


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Bench]:
    yield from _bench(tmp_path, False)


def _bench(tmp_path: Path, isolate: bool) -> Iterator[Bench]:
    if isolate and not HAS_BWRAP:
        pytest.skip("bubblewrap is not installed")
    engine_dir = tmp_path / "home" / "engine"
    engine_dir.mkdir(parents=True)
    (tmp_path / "home" / "token").write_text("secret")
    bench = Bench(ProcessRuntime(engine_dir, tmp_path / "home", isolate), engine_dir)
    yield bench
    for worker in bench.workers:
        worker.close()
    assert list((engine_dir / "scratch" / "workers").iterdir()) == []


Runner = Callable[..., tuple[Exit, str]]
