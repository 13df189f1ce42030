"""(s) What the servers hold in memory while they take bundles in, and while they run large jobs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from bench import bigstore
from bench.bundles import MIB
from bench.kaos import Kaos, started
from bench.measure import BenchError, Row
from bench.places import Run

SERVERS = ("engine", "backend")
_FILE_BYTES = 16
_LARGE_BYTES = 64 * MIB
_LOOK_S = 0.02


def measure(run: Run) -> list[Row]:
    """A bundle of a million small files, and one of 10 GiB in large ones, each by servers of its own.

    What counts is the most that was resident at any time, above what was when they had answered a first call.
    """
    files, size = (2_000, 256 * MIB) if run.quick else (1_000_000, 10 * 1024 * MIB)
    small, large = run.fresh("small"), run.fresh("large")
    for number in range(files):
        path = small / bigstore.in_folders(number)[1:]
        if number % bigstore.FOLDER == 0:
            path.parent.mkdir()
        path.write_bytes(b"%0*d" % (_FILE_BYTES, number))
    block = os.urandom(MIB)
    for number in range(size // _LARGE_BYTES):
        with (large / f"{number:03}.bin").open("wb") as out:
            out.write(b"%016d" % number)
            for _ in range(_LARGE_BYTES // MIB):
                out.write(block)
    return [
        _taking(run, small, f"{files:,} files of {_FILE_BYTES} bytes", 500),
        _taking(run, large, f"{size // MIB:,} MiB in files of {_LARGE_BYTES // MIB} MiB", 200),
    ]


def _taking(run: Run, data: Path, what: str, most_mb: float) -> Row:
    with started(run.fresh("memory-home")) as kaos:
        kaos("train", "list")
        idle = [resident_mb(kaos, server) for server in SERVERS]
        command = _command_mb(kaos, "train", "deploy", "-d", data)
        above = [peak_mb(kaos, server) - at for server, at in zip(SERVERS, idle, strict=True)]
    return Row(
        "s",
        f"{what} deployed: most memory of engine and backend above idle",
        " + ".join(f"{mb:.0f} MB" for mb in above),
        "the command",
        f"{command:.0f} MB",
        "",
        f"≤ {most_mb:g} MB each",
        max(above) <= most_mb,
    )


def _command_mb(kaos: Kaos, *args: str | Path) -> float:
    """The most memory that a command had resident; BenchError if it fails."""
    process = subprocess.Popen(
        [kaos.command, *args],
        env=kaos.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    most = 0.0
    # What the system says when it has ended counts what this process had when it was forked.
    while process.poll() is None:
        with suppress(OSError, LookupError):
            most = max(most, _status_mb(process.pid, "VmHWM"))
        time.sleep(_LOOK_S)
    if process.returncode:
        raise BenchError(f"{' '.join(map(str, args))}: exit code {process.returncode}")
    return most


def resident_mb(kaos: Kaos, server: str) -> float:
    """What a server has resident now."""
    return _status_mb(_pid(kaos, server), "VmRSS")


def peak_mb(kaos: Kaos, server: str) -> float:
    """The most memory that a server had resident."""
    return _status_mb(_pid(kaos, server), "VmHWM")


def _pid(kaos: Kaos, server: str) -> int:
    return int(json.loads((kaos.home / f"{server}.json").read_text())["pid"])


def _status_mb(pid: int, name: str) -> float:
    """LookupError for a process that has ended; OSError when it is gone."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    if found is None:
        raise LookupError(name)
    return int(found[1]) * 1024 / 1e6
