"""(e) What a trial in a container costs, beside `docker exec` and `docker run` of the same command."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.docker import docker_engine
from bench.grid import PARALLEL, Grid
from bench.kaos import started, write_source
from bench.measure import Command, Row, Timing, clean_env, seconds, timed
from bench.measure import run as call
from bench.places import Run
from tests.support.docker_engine import base_image

EXEC_AIM, RUN_AIM = 1.3, 3.0


def measure(run: Run) -> list[Row]:
    """As in (a): the difference of a long and a short grid, divided by the trials between them.

    Left out with a word where no Docker engine answers.
    """
    if (api := docker_engine("e")) is None:
        return []
    short, long, rounds = (4, 12, 1) if run.quick else (10, 100, 3)
    image = base_image(api)
    api.close()
    source = write_source(run.fresh("containers") / "bench")
    (source / "Dockerfile").write_text(f"FROM {image}\nWORKDIR /app\nCOPY . ./\n")
    data = run.fresh("containers-data")
    (data / "data.txt").write_text("data\n")
    walls: dict[str, list[float]] = {}
    with started(run.fresh("containers-home"), runtime="docker") as kaos, running(image, source) as container:
        deploy = Grid(run, kaos, source, data)
        deploy(short)  # builds the image
        train = ["python3", "/app/train"]
        peers: dict[str, Command] = {
            "exec": ["docker", "exec", "-w", "/app", container, *train],
            "run": ["docker", "run", "--rm", "-v", f"{source}:/app:ro", "-w", "/app", image, *train],
        }
        for _ in range(rounds):
            for trials in (short, long):
                walls.setdefault(f"kaos {trials}", []).append(deploy(trials))
                for peer, command in peers.items():
                    many = ["xargs", "-I{}", f"-P{PARALLEL}", "-a", numbers(run, trials), *command, "/tmp"]
                    walls.setdefault(f"{peer} {trials}", []).append(timed(many))

    def price(who: str) -> float:
        ends = [Timing(tuple(walls[f"{who} {trials}"])).median for trials in (long, short)]
        return (ends[0] - ends[1]) / (long - short)

    mine, by_exec, by_run = price("kaos"), price("exec"), price("run")
    return [
        Row(
            "e",
            f"a trial in a container, grids of {short} and {long}, {PARALLEL} at a time",
            seconds(mine),
            "docker exec into a running container",
            seconds(by_exec),
            f"{mine / by_exec:.2f}×",
            f"≤ {EXEC_AIM:g}×",
            mine <= EXEC_AIM * by_exec,
        ),
        Row(
            "e",
            "the same",
            seconds(mine),
            "docker run each",
            seconds(by_run),
            f"{mine / by_run:.2f}×",
            f"≤ {1 / RUN_AIM:.2f}×",
            RUN_AIM * mine <= by_run,
        ),
    ]


def numbers(run: Run, trials: int) -> Path:
    path = run.fresh("numbers") / "numbers"
    path.write_text("".join(f"{trial}\n" for trial in range(trials)))
    return path


@contextmanager
def running(image: str, source: Path) -> Iterator[str]:
    """The name of a container that waits for `docker exec`."""
    name = f"kaos-bench-{uuid.uuid4().hex[:8]}"
    options = ["-d", "--rm", "--init", "--name", name, "-v", f"{source}:/app:ro"]
    call(["docker", "run", *options, image, "sleep", "86400"], env=clean_env())
    try:
        yield name
    finally:
        call(["docker", "rm", "-f", name], env=clean_env())
