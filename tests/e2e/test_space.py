"""`kaos gc`, and what a workspace that is killed gives back by itself: all that only it used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaos_formats.folders import disk_bytes
from tests.support.bundles import write_data, write_source
from tests.support.home import Home
from tests.support.waiting import eventually

COMMON = os.urandom(1 << 20)
SLACK_BYTES = 100_000


@pytest.fixture
def kaos(tmp_path: Path) -> Iterator[Home]:
    kaos = Home(tmp_path / "home")
    kaos.run("workspace", "create", "kept")
    yield kaos
    kaos.down()


def files(kaos: Home) -> int:
    """Bytes of all that the engine keeps but its database."""
    engine = kaos.path / "engine"
    return sum(disk_bytes(engine / name) for name in ("packs", "objects", "images", "venvs", "logs", "trees"))


def test_a_killed_workspace_gives_back_all_that_only_it_used(kaos: Home, tmp_path: Path) -> None:
    kept = {"common.bin": COMMON, "own.txt": b"own"}
    data = write_data(tmp_path / "kept", kept)
    kaos.run("train", "deploy", "-w", "kept", "-d", data)
    before = files(kaos)
    kaos.run("workspace", "create", "gone")
    other = write_data(tmp_path / "gone", {"common.bin": COMMON, "more.bin": os.urandom(1 << 20)})
    source = write_source(tmp_path / "src", body="print('hello')")
    kaos.run("train", "deploy", "-w", "gone", "-s", source, "-d", other, "--wait")
    assert kaos.json("gc", "--dry-run")["objects"] == 0
    assert files(kaos) > before + (1 << 20)
    use = kaos.json("du")
    shares = [*use["workspaces"].values(), use["shared"], use["can_go"]]
    assert use["shared"]["data"] == len(COMMON)
    assert use["workspaces"]["gone"]["data"] >= 1 << 20
    assert use["workspaces"]["gone"]["images"] > 0
    assert use["total"] == sum(share["total"] for share in shares) + use["database"]
    assert max(map(len, kaos.run("du").stdout.splitlines())) <= 80

    kaos.run("workspace", "kill", "gone", "--yes")
    eventually(lambda: files(kaos) < before + SLACK_BYTES, "the space of a killed workspace comes back")
    assert not list((kaos.path / "engine" / "venvs").glob("py*/"))
    eventually(lambda: kaos.run("gc").stdout == "there is nothing to give back\n", "nothing is left")
    fetched = kaos.run("train", "deploy", "-w", "kept", "-d", data)
    assert "all new" not in fetched.stdout
    assert kaos.json("fsck")["findings"] == []


def test_gc_tells_before_what_goes(kaos: Home, tmp_path: Path) -> None:
    kaos.run("down")
    kaos.run("up", env={"KAOS_UPKEEP_SHARE": "0"})
    kaos.run("workspace", "create", "gone")
    kaos.run("train", "deploy", "-w", "gone", "-d", write_data(tmp_path / "d", {"big.bin": COMMON}))
    kaos.run("workspace", "kill", "gone", "--yes")

    def would() -> int:
        told = kaos.json("gc", "--dry-run")
        assert told["dry_run"]
        return int(told["object_bytes"]) if told["objects"] == 2 else 0

    # What was handed over is held for a moment after it was used.
    assert len(COMMON) < eventually(would, "it can go") < len(COMMON) + SLACK_BYTES
    assert files(kaos) > len(COMMON)
    said = kaos.run("gc").stdout
    assert said.startswith("contents ")
    assert said.endswith(" given back\n")
    assert files(kaos) < SLACK_BYTES
