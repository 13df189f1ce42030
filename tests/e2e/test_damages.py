"""What the command line finds in KAOS_HOME, in any shape."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """One that nobody else uses."""
    made = Home(tmp_path / "home")
    yield made
    made.run("down")


def folder(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (path / "x").mkdir(parents=True)


def file(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
    path.write_bytes(b"\xff no folder")


def test_up_starts_whatever_became_of_its_files(home: Home) -> None:
    home.run("up")
    home.run("down")
    for name in ("backend.json", "backend.lock", "up.lock", "stopped", "logs/backend.log"):
        folder(home.path / name)
    file(home.path / "cache")
    home.run("up")
    assert home.json("workspace", "list")["workspaces"][0]["name"] == "default"
    home.run("down")
    file(home.path / "logs")
    assert home.json("status")["version"] == 1


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[1]", b'{"workspace": 3}', None])
def test_settings_that_cannot_be_read_are_named_and_can_be_set_again(
    home: Home, content: bytes | None
) -> None:
    path = home.path / "config.json"
    home.run("up")
    folder(path) if content is None else path.write_bytes(content)
    assert home.run("up", check=False).returncode == 0
    assert home.run("status", check=False).returncode == 0
    said = home.run("train", "list", check=False)
    assert said.returncode == 0 or str(path) in said.stderr
    assert "Traceback" not in said.stderr
    home.run("train", "list", "-w", "default")
    home.run("workspace", "set", "default")
    home.run("train", "list")
