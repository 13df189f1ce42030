"""What can be made again is made again: images and environments that somebody removed or damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.bundles import write_data, write_grid, write_source
from tests.support.home import Home


def _one(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def remove_image(engine: Path) -> None:
    shutil.rmtree(_one(engine / "images", "kaos-*"))


def remove_environment(engine: Path) -> None:
    shutil.rmtree(engine / "venvs")


def remove_train(engine: Path) -> None:
    _one(engine / "images", "kaos-*/root/**/train").unlink()


@pytest.fixture
def kaos(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home", env={"KAOS_ENGINE_CPUS": "2"})
    yield home
    home.down()


@pytest.mark.parametrize("damage", [remove_image, remove_environment, remove_train])
def test_a_redeploy_makes_a_lost_image_again(
    kaos: Home, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    src = write_source(tmp_path / "src")
    data = write_data(tmp_path / "data", {"a.txt": b"a"})
    grid = write_grid(tmp_path / "grid.json", {"x": [1]})
    kaos.run("train", "deploy", "-s", src, "-d", data, "-h", grid, "--wait")
    damage(kaos.path / "engine")
    again = kaos.json("train", "deploy", "-h", write_grid(grid, {"x": [1, 2]}), "--wait")
    assert (again["status"], again["stages"]) == ("started", ["build", "train"])
    info = kaos.json("train", "info")
    assert info["state"] == "success"
    assert {one["params"]["x"] for one in info["trials"]} == {1, 2}
    assert kaos.json("train", "deploy", "-s", src, "-d", data, "-h", grid)["status"] == "unchanged"
