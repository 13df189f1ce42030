"""kaos as a user drives it: the command, with a KAOS_HOME of its own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.measure import BenchError, clean_env, run, timed
from bench.places import kaos_command

TRAIN = """#!/usr/bin/env python3
import sys
with open(sys.argv[1] + "/metrics.json", "w") as out:
    out.write('{"accuracy": 0.5}')
"""
JOB_DEADLINE_S = 600
OVER = {"success", "partial", "failed", "killed"}


class Kaos:
    """One home with its own backend and engine."""

    def __init__(self, home: Path, runtime: str, extra: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.command = kaos_command()
        own = {"KAOS_HOME": str(home), "KAOS_RUNTIME": runtime, "NO_COLOR": "1"}
        self.env = clean_env(own | dict(extra or {}))

    def __call__(self, *args: str | Path) -> str:
        return run([self.command, *args], env=self.env)

    def timed(self, *args: str | Path) -> float:
        return timed([self.command, *args], env=self.env)

    def json(self, *args: str | Path) -> Any:
        return json.loads(self(*args, "--json"))

    def jobs(self) -> int:
        listed = self.json("train", "list")
        return len(listed["jobs"] if isinstance(listed, dict) else listed)

    def wait(self) -> dict[str, Any]:
        """The last job, once it is over. BenchError unless it succeeded in time."""
        deadline = time.monotonic() + JOB_DEADLINE_S
        while time.monotonic() < deadline:
            job: dict[str, Any] = self.json("train", "info")
            if job["state"] in OVER:
                if job["state"] != "success":
                    raise BenchError(f"job {job['id']} ended {job['state']}: {job.get('reason', '')}")
                return job
            time.sleep(0.3)
        raise BenchError(f"the job was not over after {JOB_DEADLINE_S} s")

    def timed_noop(self, *args: str | Path, n: int) -> list[float]:
        """Wall seconds of n+1 deploys that must start nothing; the first only warms up and is left out."""
        before = self.jobs()
        walls = [self.timed("train", "deploy", *args) for _ in range(n + 1)][1:]
        if self.jobs() != before:
            raise BenchError("a deploy of what was deployed already started a job")
        return walls


@contextmanager
def started(home: Path, runtime: str = "process", extra: Mapping[str, str] | None = None) -> Iterator[Kaos]:
    """A running home, with `extra` variables in its environment; whatever happens, its processes end."""
    kaos = Kaos(home, runtime, extra)
    kaos("up")
    try:
        yield kaos
    finally:
        if runtime == "docker":
            # Its images are not in the folder that is removed.
            kaos("workspace", "kill", "default", "--yes")
        kaos("down")


def write_source(where: Path) -> Path:
    """A source bundle without requirements, whose `train` only writes a metric."""
    where.mkdir(parents=True, exist_ok=True)
    (where / "Dockerfile").write_text(
        f"FROM python:{sys.version_info.major}.{sys.version_info.minor}-slim\nWORKDIR /app\nCOPY . ./\n"
    )
    train = where / "train"
    train.write_text(TRAIN)
    train.chmod(0o755)
    return where
