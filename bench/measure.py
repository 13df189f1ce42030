"""Timing of whole commands, and the row of the report that comes of it."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Command = Sequence[str | Path]


class BenchError(Exception):
    """A measured command did something else than what was to be measured."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall-clock samples in seconds."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def __str__(self) -> str:
        if len(self.samples) == 1:
            return seconds(self.median)
        return f"{seconds(self.median)} [{seconds(min(self.samples))}-{seconds(max(self.samples))}]"


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. `aim` is empty where nothing was promised; `met` is None then."""

    part: str
    what: str
    kaos: str
    against: str
    other: str
    ratio: str
    aim: str = ""
    met: bool | None = None


def compare(
    part: str, what: str, kaos: Timing, against: str, other: Timing, below: float | None = None
) -> Row:
    """A row for the ratio of two medians; `below` is the ratio that is aimed for, exclusive."""
    ratio = kaos.median / other.median
    aim = "" if below is None else f"< {below:g}×"
    return Row(
        part,
        what,
        str(kaos),
        against,
        str(other),
        f"{ratio:.2f}×",
        aim,
        None if below is None else ratio < below,
    )


def within(
    part: str, what: str, kaos: Timing, against: str, other: Timing, times: float, plus_s: float
) -> Row:
    """A row for what may take `times` as long as something else, and `plus_s` seconds."""
    aim = f"<= {f'{times:g}× ' if times != 1 else ''}+ {plus_s:g} s"
    ratio = f"{kaos.median / other.median:.2f}×"
    met = kaos.median <= times * other.median + plus_s
    return Row(part, what, str(kaos), against, str(other), ratio, aim, met)


def seconds(value: float) -> str:
    """Three digits that matter, in the unit people use for that size."""
    return f"{value * 1000:.3g} ms" if abs(value) < 0.1 else f"{value:.3g} s"


def clean_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would steer kaos, dvc or Python."""
    steering = ("KAOS_", "DVC_", "PACH", "PYTHON", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    return kept | dict(extra or {})


def run(command: Command, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """The command's stdout. BenchError with what it said if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=dict(env) if env is not None else clean_env(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        raise BenchError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{said}")
    return done.stdout


def timed(command: Command, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> float:
    """Wall seconds of one run, from before the spawn until its output has been read."""
    env = dict(env) if env is not None else clean_env()
    started = time.perf_counter()
    run(command, cwd, env)
    return time.perf_counter() - started


def alternate(
    commands: Mapping[str, tuple[Command, Path | None, Mapping[str, str]]], n: int
) -> dict[str, Timing]:
    """Each command once to warm it up, then n rounds of all: a slow minute of the machine hits all alike."""
    samples: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(n + 1):
        for name, (command, cwd, env) in commands.items():
            wall = timed(command, cwd, env)
            if turn:
                samples[name].append(wall)
    return {name: Timing(tuple(values)) for name, values in samples.items()}
