"""Things on a disk that cannot be removed, while a test lasts; skips it where that is not allowed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Stubborn:
    """Makes them below one folder; whatever was renamed meanwhile, all of it can be removed at the end."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def immutable(self, path: Path) -> None:
        """A file or folder that not even root can change, rename or remove."""
        _run("chattr", "+i", str(path))

    def mount(self, path: Path, source: Path | None = None) -> None:
        """Another folder (default: an empty file system) seen at `path`."""
        what = ["--bind", str(source)] if source else ["-t", "tmpfs", "none"]
        _run("mount", *what, str(path))

    def release(self) -> None:
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            place = line.split(" ")[4]
            if place.startswith(f"{self._root}/"):
                subprocess.run(["umount", place], check=True)
        subprocess.run(["chattr", "-R", "-f", "-i", str(self._root)], check=False)


@contextmanager
def stubborn(root: Path) -> Iterator[Stubborn]:
    made = Stubborn(root)
    try:
        yield made
    finally:
        made.release()


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"no {command[0]} here")
    if done.returncode != 0:
        pytest.skip(f"{command[0]} is not allowed here: {done.stderr.strip()}")
