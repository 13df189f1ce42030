"""(h) An engine that was killed in the middle of a large grid, and started again."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from bench.kaos import Kaos, started, write_source
from bench.measure import BenchError, Row, Timing, seconds
from bench.places import Run

AIM_S = 2.0
_DEADLINE_S = 900.0
_LOOK_S = 0.02
# Room for the trials that end beside those that run on: in which order they come nobody knows.
_SPARE = 4
# By which those that run on are told from the rest of the machine.
_SLEEP_S = 100_000_000 + os.getpid()
_TRAIN = f"""#!/bin/sh
read -r params < "$KAOS_PARAMS"
seed=${{params##*:}} seed=${{seed%\\}}*}}
if [ "$seed" -lt 0 ]; then exec sleep {_SLEEP_S}; fi
echo '{{"accuracy": 0.5}}' > "$1/metrics.json"
"""


def measure(run: Run) -> list[Row]:
    """`kaos train list` right after `kill -9` of the engine, or of engine and backend, until it has answered
    with what is true of the job; and the time until all trials that ran are being run again.

    Every trial asks for a core, and the engine is told of enough of them: what starts is kept from nothing.
    """
    done, running, n = (200, 10, 2) if run.quick else (10_000, 100, 5)
    source = write_source(run.fresh("restart") / "bench")
    (source / "train").write_text(_TRAIN)
    data = run.fresh("restart-data")
    (data / "data.txt").write_text("data\n")
    grid = run.fresh("restart-hyper") / "params.json"
    grid.write_text(json.dumps({"seed": [*range(-running, 0), *range(done)]}))
    places = str(running + _SPARE)

    with started(run.fresh("restart-empty")) as kaos:
        empty = Timing(tuple(_answer(kaos, ("engine", "backend")) for _ in range(n)))
    with started(run.fresh("restart-home"), extra={"KAOS_ENGINE_CPUS": places}) as kaos:
        kaos("train", "deploy", "-s", source, "-d", data, "-h", grid, "--cpu", "1", "-p", places)
        _until(lambda: _job(kaos) == (done, running) and len(_sleepers()) == running)
        rounds = [[_round(kaos, programs, done, running) for programs in _KILLED] for _ in range(n)]

    rows = []
    for programs, walls in zip(_KILLED, zip(*rounds, strict=True), strict=True):
        answers, again = (Timing(samples) for samples in zip(*walls, strict=True))
        names = " and ".join(programs)
        rows += [
            Row(
                "h",
                f"{names} killed with {done:,} trials done and {running} running: `kaos train list`",
                str(answers),
                "engine and backend of an empty home",
                str(empty),
                f"{answers.median / empty.median:.2f}×",
                *((f"< {seconds(AIM_S)}", answers.median < AIM_S) if programs == ("engine",) else ()),
            ),
            Row(
                "h",
                f"the same: all {running} are being run again",
                str(again),
                "engine and backend of an empty home",
                str(empty),
                f"{again.median / empty.median:.2f}×",
            ),
        ]
    return rows


_KILLED: list[tuple[str, ...]] = [("engine",), ("engine", "backend")]


def _round(kaos: Kaos, programs: tuple[str, ...], done: int, running: int) -> tuple[float, float]:
    """Seconds until the answer, and until all trials run again."""
    before = _sleepers()
    began = time.perf_counter()
    answered = _answer(kaos, programs, done)
    _until(lambda: len(_sleepers() - before) == running)
    again = time.perf_counter() - began
    _until(lambda: _job(kaos) == (done, running) and not _sleepers() & before)
    return answered, again


def _answer(kaos: Kaos, programs: tuple[str, ...], done: int | None = None) -> float:
    """Seconds from the death of `programs` until a command has answered, which must say `done` of the job."""
    for program in programs:
        pid = json.loads((kaos.home / f"{program}.json").read_text())["pid"]
        os.kill(pid, signal.SIGKILL)
    began = time.perf_counter()
    jobs = kaos.json("train", "list")["jobs"]
    wall = time.perf_counter() - began
    found = jobs[0]["stages"][-1]["processed"] if jobs else None
    if found != done:
        raise BenchError(f"{done} trials were done, and after a restart {found}")
    return wall


def _job(kaos: Kaos) -> tuple[int, int]:
    """(done, running) of the one job."""
    (job,) = kaos.json("status")["jobs"]
    return job["done"], job["running"]


def _sleepers() -> set[tuple[str, str]]:
    """(pid, start) of the trials that run on: pids come again."""
    command = f"sleep\0{_SLEEP_S}\0".encode()
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cmdline").read_bytes() == command:
                found.add((entry.name, (entry / "stat").read_text().rpartition(")")[2].split()[19]))
        except OSError:
            continue
    return found


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"what is measured had not come after {_DEADLINE_S:g} s")
        time.sleep(_LOOK_S)
