"""(g) A gigabyte of log from one trial, followed and read."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from bench.kaos import JOB_DEADLINE_S, Kaos, started, write_source
from bench.measure import BenchError, Row, clean_env
from bench.places import Run, bare_python

AIM_MB_S = 150
LOOK_S = 0.02
TRAIN = """#!/usr/bin/env python3
import json, os, sys, time
with open(os.environ["KAOS_PARAMS"]) as file:
    size = json.load(file)["bytes"]
line = "epoch {:06} step {:06} loss 0.123456 accuracy 0.987654 lr 0.001000 throughput 1234.5 samples/s"
block = "".join(f"{line.format(i % 7, i):<99}\\n" for i in range(10_000)).encode()
began = time.time()
for _ in range(size // len(block)):
    sys.stdout.buffer.write(block)
sys.stdout.buffer.flush()
with open(sys.argv[1] + "/metrics.json", "w") as out:
    json.dump({"began": began, "ended": time.time()}, out)
"""
BLOCK_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Used:
    """What a process used: seconds of processor time, and bytes of memory at rest and at most."""

    cpu_s: float
    before: int
    most: int


@dataclass(frozen=True, slots=True)
class Followed:
    """Seconds from the first write to the last one, and to when all of it was in the follower's file."""

    written_s: float
    followed_s: float


def measure(run: Run) -> list[Row]:
    """One trial prints lines of 100 bytes as fast as it can, while `kaos train logs -f` copies them.

    The floor is the same program writing to a file that `tail -f` copies. Afterwards the log is read once
    more, beside `cat`. Rates are of the texts; what is stored has 19 bytes more a line.
    """
    size = (50 if run.quick else 1000) * BLOCK_BYTES
    folder = run.fresh("logs")
    source = write_source(folder / "bench")
    (source / "train").write_text(TRAIN)
    data = run.fresh("logs-data")
    (data / "data.txt").write_text("data\n")
    floor, cat_s = _bare(run, source / "train", size, folder)
    with started(run.fresh("logs-home")) as kaos:
        _deploy(kaos, source, data, folder, BLOCK_BYTES)  # builds the image
        kaos.wait()
        processes = {name: Watched(_pid(kaos, name)) for name in ("engine", "backend")}
        _deploy(kaos, source, data, folder, size)
        copy = folder / "followed"
        with copy.open("wb") as out, _logs(kaos, out, "-f") as cli:
            processes["cli"] = Watched(cli.pid)
            at = _when_complete(copy, size, processes)
            launched = sum(_cpu_s(child) for child in _launchers(_pid(kaos, "engine")))
            if cli.wait(JOB_DEADLINE_S):
                raise BenchError(f"kaos train logs -f ended with {cli.returncode}")
        job = kaos.wait()
        told = job["trials"][0]["metrics"]
        kaos_times = Followed(told["ended"] - told["began"], at - told["began"])
        used = {name: watched.used() for name, watched in processes.items()}
        again = folder / "read"
        with again.open("wb") as out:
            began = time.perf_counter()
            with _logs(kaos, out) as cli:
                cli.wait(JOB_DEADLINE_S)
            read_s = time.perf_counter() - began
        if again.stat().st_size < size or not _same(copy, again):
            raise BenchError("what was read is not what was followed")
    mb = size / 1e6
    what = f"{mb:,.0f} MB of log from one trial"
    follow, against = mb / kaos_times.followed_s, mb / floor.followed_s
    cpu = {"launcher": launched, **{name: one.cpu_s for name, one in used.items()}}
    return [
        Row(
            "g", f"{what}, written and followed by `logs -f` into a file", _rate(follow),
            "`train > file`, `tail -f` of it into another", _rate(against),
            f"{follow / against:.2f}×", f"≥ {AIM_MB_S} MB/s", follow >= AIM_MB_S,
        ),
        Row(
            "g", "the same, until the trial had written it all", _rate(mb / kaos_times.written_s),
            "`train > file`", _rate(mb / floor.written_s),
            f"{floor.written_s / kaos_times.written_s:.2f}×",
        ),
        Row(
            "g", "the same read afterwards, `train logs` into a file", _rate(mb / read_s),
            "`cat file > file`", _rate(mb / cat_s), f"{cat_s / read_s:.2f}×",
        ),
        Row(
            "g", "most memory of engine, backend, command line while it is followed",
            ", ".join(f"{one.most / 1e6:.0f} MB" for one in used.values()), "engine, backend at rest",
            ", ".join(f"{used[name].before / 1e6:.0f} MB" for name in ("engine", "backend")), "",
        ),
        Row(
            "g", f"processor time a MB: {', '.join(cpu)}",
            ", ".join(f"{seconds / mb * 1000:.1f} ms" for seconds in cpu.values()), "", "", "",
        ),
    ]  # fmt: skip


class Watched:
    """A process from now on."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._cpu_s = _cpu_s(self._process)
        self._before = self._most = self._process.memory_info().rss
        self._last_cpu_s = self._cpu_s

    def look(self) -> None:
        self._most = max(self._most, self._process.memory_info().rss)
        self._last_cpu_s = _cpu_s(self._process)

    def used(self) -> Used:
        return Used(self._last_cpu_s - self._cpu_s, self._before, self._most)


def _bare(run: Run, train: Path, size: int, folder: Path) -> tuple[Followed, float]:
    """The program without kaos, and the seconds of `cat` of what it wrote."""
    params, out = folder / "bare.json", run.fresh("logs-bare")
    params.write_text(json.dumps({"bytes": size}))
    env = clean_env({"KAOS_PARAMS": str(params)})
    log, copy = folder / "bare.log", folder / "bare.copy"
    python = bare_python(out / "venv") / "python3"
    with (
        log.open("wb") as written,
        copy.open("wb") as copied,
        subprocess.Popen(["tail", "-n", "+1", "-f", log], stdout=copied) as tail,
    ):
        with subprocess.Popen([python, train, out], stdout=written, env=env):
            at = _when_complete(copy, size, {})
        tail.terminate()
    told = json.loads((out / "metrics.json").read_text())
    began = time.perf_counter()
    with (folder / "cat").open("wb") as file:
        subprocess.run(["cat", log], stdout=file, check=True)
    return Followed(told["ended"] - told["began"], at - told["began"]), time.perf_counter() - began


def _when_complete(file: Path, size: int, watched: dict[str, Watched]) -> float:
    deadline = time.monotonic() + JOB_DEADLINE_S
    while file.stat().st_size < size:
        if time.monotonic() > deadline:
            raise BenchError(f"{file.name} was not complete after {JOB_DEADLINE_S} s")
        for one in watched.values():
            one.look()
        time.sleep(LOOK_S)
    return time.time()


def _deploy(kaos: Kaos, source: Path, data: Path, folder: Path, size: int) -> None:
    hyper = folder / "params.json"
    hyper.write_text(json.dumps({"bytes": size}))
    kaos("train", "deploy", "-s", source, "-d", data, "-h", hyper)


@contextmanager
def _logs(kaos: Kaos, out: IO[bytes], *options: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(kaos.command), "train", "logs", "--trial", "0", *options]
    with subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=kaos.env) as process:
        yield process


def _pid(kaos: Kaos, server: str) -> int:
    return int(json.loads((kaos.home / f"{server}.json").read_text())["pid"])


def _launchers(engine: int) -> list[psutil.Process]:
    below = psutil.Process(engine).children(recursive=True)
    return [one for one in below if "kaos_backend.engine.workers" in " ".join(one.cmdline())]


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _same(one: Path, other: Path) -> bool:
    return subprocess.run(["cmp", "-s", one, other], check=False).returncode == 0


def _rate(mb_s: float) -> str:
    return f"{mb_s:.0f} MB/s"
