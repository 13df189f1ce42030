"""(a) What a trial costs above the bare command."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.kaos import Kaos, started, write_source
from bench.measure import BenchError, Command, Row, Timing, clean_env, seconds, timed
from bench.places import Run, bare_python

PARALLEL = 2
AIM_S = 0.008


def measure(run: Run) -> list[Row]:
    """Deploys of a short and a long grid, and the same commands under `xargs -P2`.

    Everything that is paid once (interpreter start, upload, the job's own start and end) is in both
    the short and the long run, so the difference of the two, divided by the trials between them, is the
    price of a trial alone. The bare command's price is found in the same way; the cost is what kaos's
    price is above it.
    """
    short, long, n = (4, 24, 1) if run.quick else (10, 500, 3)
    source = write_source(run.fresh("grid") / "bench")
    data = run.fresh("grid-data")
    (data / "data.txt").write_text("data\n")
    bare = Bare(run, source / "train")
    walls: dict[str, list[float]] = {"kaos short": [], "kaos long": [], "bare short": [], "bare long": []}
    inside: list[float] = []
    with started(run.fresh("grid-home")) as kaos:
        deploy = Grid(run, kaos, source, data)
        deploy(short)  # builds the image
        for _ in range(n):
            walls["bare short"].append(bare(short))
            walls["bare long"].append(bare(long))
            walls["kaos short"].append(deploy(short))
            walls["kaos long"].append(deploy(long))
            inside.append(train_seconds(kaos.wait()))

    timings = {name: Timing(tuple(values)) for name, values in walls.items()}

    def price(who: str) -> float:
        return (timings[f"{who} long"].median - timings[f"{who} short"].median) / (long - short)

    cost = price("kaos") - price("bare")
    per_trial = Timing(tuple(wall / long for wall in inside))
    return [
        Row(
            "a",
            f"cost of a trial above the bare command, grids of {short} and {long}, {PARALLEL} at a time",
            seconds(cost),
            f"xargs -P{PARALLEL}, a trial",
            seconds(price("bare")),
            f"+{seconds(cost)}",
            f"< {seconds(AIM_S)}",
            cost < AIM_S,
        ),
        Row(
            "a",
            f"{long} trials, the whole command with --wait",
            str(timings["kaos long"]),
            f"xargs -P{PARALLEL}",
            str(timings["bare long"]),
            f"{timings['kaos long'].median / timings['bare long'].median:.2f}×",
        ),
        Row(
            "a",
            f"a trial by the job's own clock ({long} trials, start to end of training)",
            str(per_trial),
            f"xargs -P{PARALLEL}, a trial",
            seconds(price("bare")),
            f"{per_trial.median / price('bare'):.2f}×",
        ),
    ]


class Grid:
    """Deploys grids whose points were never run before: new values each time."""

    def __init__(self, run: Run, kaos: Kaos, source: Path, data: Path) -> None:
        self._kaos = kaos
        self._file = run.fresh("grid-hyper") / "params.json"
        self._deploy: Command = [
            "train",
            "deploy",
            "-s",
            source,
            "-d",
            data,
            "-h",
            self._file,
            "-p",
            str(PARALLEL),
            "--wait",
        ]
        self._begin = self._next = 0

    def __call__(self, trials: int) -> float:
        """Wall seconds of a grid of so many."""
        self._begin = self._next
        return self.add(trials)

    def add(self, trials: int) -> float:
        """The same of the last grid with so many points more."""
        self._next += trials
        self._file.write_text(json.dumps({"seed": list(range(self._begin, self._next))}))
        return self._kaos.timed(*self._deploy)


class Bare:
    """`xargs -P2 ./train`, one output folder per trial made beforehand, no shell between."""

    def __init__(self, run: Run, train: Path) -> None:
        self._fresh: Callable[[str], Path] = run.fresh
        self._train = train
        path = f"{bare_python(run.fresh('bare-python'))}:{clean_env()['PATH']}"
        self._env = clean_env({"PATH": path})

    def __call__(self, trials: int) -> float:
        out = self._fresh("bare")
        names = [str(out / f"{trial:03}") for trial in range(trials)]
        for name in names:
            Path(name).mkdir()
        listed = out / "names"
        listed.write_text("\n".join(names) + "\n")
        wall = timed(["xargs", "-a", listed, "-n1", f"-P{PARALLEL}", self._train], env=self._env)
        done = len(list(out.glob("*/metrics.json")))
        if done != trials:
            raise BenchError(f"xargs ran {done} of {trials}")
        return wall


def train_seconds(job: dict[str, Any]) -> float:
    """From the start to the end of the train job, as kaos recorded it."""
    train = job["stages"][-1]
    begin, end = (datetime.fromisoformat(train[key]) for key in ("started", "finished"))
    return (end - begin).total_seconds()
