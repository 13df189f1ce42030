"""The header (what was measured on what) and the table."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from tabulate import tabulate

from bench.kaos import started
from bench.measure import Row
from bench.places import REPOSITORY, Run, dvc, dvc_env, swept_seconds_ago

BUSY = 0.5


def header(run: Run) -> list[str]:
    """Machine, versions, runtime, and whatever may spoil the figures."""
    now = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    lines = [
        f"{now} UTC, kaos {metadata.version('kaos')} at {commit()}",
        f"{cpu()}, {os.cpu_count()} cores, {memory_gib()} GiB; {platform.system()} {platform.release()}, "
        f"{filesystem(REPOSITORY)}; Python {platform.python_version()}, typer {metadata.version('typer')}, "
        f"dvc {dvc_version()}",
        runtime(run),
        "wall time, median [min-max], inputs in the page cache",
    ]
    load = os.getloadavg()[0]
    if load > BUSY:
        lines.append(f"WARNING: the machine is busy (load {load:.1f}): compare ratios, not seconds")
    if (ago := swept_seconds_ago()) is not None:
        lines.append(
            f"WARNING: the last run's files were deleted {ago:.0f} s ago: on ext4, creating files is slow "
            "for about six minutes after that, for every tool"
        )
    if run.quick:
        lines.append("QUICK: small sizes and few runs, for trying the benchmark; not for quoting")
    return lines


def table(rows: Iterable[Row]) -> str:
    """Markdown, so that it can be pasted into docs/benchmarks.md."""
    verdict = {True: "met", False: "**missed**", None: ""}
    shown = [
        (row.part, row.what, row.kaos, row.against, row.other, row.ratio, row.aim, verdict[row.met])
        for row in rows
    ]
    names = ("", "measured", "kaos", "against", "it took", "ratio", "aim", "")
    return tabulate(shown, names, tablefmt="github", disable_numparse=True)


def save(lines: Sequence[str], rows: Sequence[Row], where: Path) -> Path:
    """Keep a run's figures as JSON beside the benchmark (git ignores them)."""
    where.mkdir(parents=True, exist_ok=True)
    path = where / time.strftime("%Y%m%d-%H%M%S.json")
    path.write_text(
        json.dumps({"header": list(lines), "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
    )
    return path


def runtime(run: Run) -> str:
    """What runs the trials here, in kaos's own words: isolation has its price."""
    with started(run.fresh("status-home")) as kaos:
        told = kaos.json("status")["runtime"]
    return f"runtime {told['name']}, isolation {told['isolation']}"


def commit() -> str:
    """The commit measured, with a mark when the tree differs from it."""
    git = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    done = subprocess.run(git, capture_output=True, text=True)
    return done.stdout.strip() or "an unknown commit"


def cpu() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30))


def filesystem(path: Path) -> str:
    done = subprocess.run(["stat", "-f", "-c", "%T", str(path)], capture_output=True, text=True)
    return done.stdout.strip().replace("ext2/ext3", "ext4") or "unknown file system"


def dvc_version() -> str:
    done = subprocess.run([dvc(), "--version"], capture_output=True, text=True, env=dvc_env(Path(sys.prefix)))
    return done.stdout.strip()
