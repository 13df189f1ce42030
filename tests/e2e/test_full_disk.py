"""A disk that is really full: told as such, nothing half-stored, and all well once there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_bad_input import trace
from tests.support.bundles import write_data, write_grid, write_source
from tests.support.home import Home

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")

DISK_MIB = 48


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[Home]:
    """KAOS_HOME on a disk of its own of 48 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "kaos-test", disk], check=True)
    kaos = Home(disk / "home")
    try:
        yield kaos
    finally:
        kaos.down()
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_deploy_that_does_not_fit_is_told_and_leaves_nothing(cramped: Home, tmp_path: Path) -> None:
    src = write_source(tmp_path / "src")
    big = write_data(tmp_path / "big", {"blob": os.urandom((DISK_MIB + 16) << 20)})
    small = write_data(tmp_path / "small", {"a.txt": b"fits"})
    cramped.run("up")
    done = cramped.run("train", "deploy", "-s", src, "-d", big, check=False)
    assert done.returncode == 1
    assert "67.1 MB of the data are not stored yet" in done.stderr
    assert "free: nothing was sent" in done.stderr
    assert "free some space there" in done.stderr
    assert "Traceback" not in done.stderr
    assert trace(cramped, "default") == []
    assert cramped.json("train", "deploy", "-s", src, "-d", small, "--wait")["status"] == "started"
    assert cramped.json("train", "info")["state"] == "success"


def test_an_output_that_can_never_fit_costs_its_own_trial_only(cramped: Home, tmp_path: Path) -> None:
    body = 'open(os.path.join(out, "big"), "wb").write(os.urandom(params["mib"] << 20))'
    src = write_source(tmp_path / "src", body)
    data = write_data(tmp_path / "data", {"a.txt": b"a"})
    grid = write_grid(tmp_path / "grid.json", {"mib": [1, DISK_MIB * 5 // 8]})
    done = cramped.run(
        "train", "deploy", "-s", src, "-d", data, "-h", grid, "--cpu", "2", "--wait", check=False
    )
    assert done.returncode == 1
    trials = {one["params"]["mib"]: one for one in cramped.json("train", "info")["trials"]}
    assert trials[1]["state"] == "success"
    big = trials[DISK_MIB * 5 // 8]
    assert big["state"] == "failed"
    log = cramped.run("train", "logs", "--trial", str(big["trial"])).stdout
    assert "output too large" in log
    assert "can never fit" in log
    # Nothing of it stands in the way of the next.
    grid = write_grid(grid, {"mib": [2]})
    cramped.run("train", "deploy", "-h", grid, "--wait")
