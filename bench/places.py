"""Folders and environments of a run. Nothing is deleted before the end: see `Run.sweep`."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.measure import BenchError, clean_env, run

REPOSITORY = Path(__file__).resolve().parents[1]
ROOT = REPOSITORY / "scratch" / "bench"
SWEPT = ROOT / ".swept"
EXT4_MEMORY_S = 360


@dataclass
class Run:
    """One invocation: its folder, its size, and numbered fresh folders below it."""

    root: Path
    quick: bool
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(1_000_000)))

    def fresh(self, name: str) -> Path:
        """A new empty folder."""
        path = self.root / f"{next(self._numbers):03}-{name}"
        path.mkdir(parents=True)
        return path

    def sweep(self, big: bool) -> None:
        """Delete the run, as its very last act.

        ext4 does not hand out an inode for some minutes after it was freed, and looks for another one by
        one: creating files after a big delete is an order of magnitude slower. So nothing is deleted
        between measurements, and the next run is told when the last big sweep was.
        """
        shutil.rmtree(self.root)
        if big:
            SWEPT.write_text(f"{time.time():.0f}\n")


def begin(quick: bool) -> Run:
    root = ROOT / time.strftime("run-%Y%m%d-%H%M%S")
    root.mkdir(parents=True)
    return Run(root, quick)


def swept_seconds_ago() -> float | None:
    """Age of the last sweep while ext4 may still remember it, else None."""
    try:
        age = time.time() - float(SWEPT.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return age if age < EXT4_MEMORY_S else None


def dvc_env(where: Path) -> dict[str, str]:
    """dvc as a user would have it, minus the network and what it shares between repositories."""
    return clean_env({"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(where / "dvc-site"), "CI": "1"})


def dvc() -> Path:
    """The peer's command, installed on first use and kept for later runs."""
    requirements = REPOSITORY / "bench" / "requirements.txt"
    key = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    venv = ROOT / f"venv-dvc-{key}"
    if not (venv / ".ready").exists():
        print(f"Installing dvc into {venv.relative_to(REPOSITORY)} …", file=sys.stderr, flush=True)
        run([sys.executable, "-m", "venv", "--clear", venv])
        run([venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements])
        (venv / ".ready").touch()
    return venv / "bin" / "dvc"


def bare_python(where: Path) -> Path:
    """The bin folder of a new, empty virtual environment: what an image without requirements runs."""
    run([sys.executable, "-m", "venv", "--without-pip", where])
    return where / "bin"


def kaos_command() -> Path:
    """The console script beside this interpreter: what a user types."""
    command = Path(sys.executable).parent / "kaos"
    if not os.access(command, os.X_OK):
        raise BenchError(
            f"no {command}: install kaos into the environment that runs the benchmark (make install)"
        )
    return command
