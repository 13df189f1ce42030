"""The mnist template's `train`, run as a program of its own and without kaos."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)  # the first test installs torch

REPOSITORY = Path(__file__).parents[3]
TEMPLATE = REPOSITORY / "templates" / "mnist"
MODEL = TEMPLATE / "model-train" / "mnist" / "model"


@pytest.fixture(scope="session")
def python() -> str:
    """An interpreter with the template's requirements, which kaos itself does not need.

    The environment is kept below scratch/, by the content of requirements.txt.
    """
    if importlib.util.find_spec("torch"):
        return sys.executable
    requirements = MODEL / "requirements.txt"
    key = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    venv = REPOSITORY / "scratch" / f"venv-mnist-{key}"
    ready = venv / ".ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "--quiet", "-r", requirements], check=True)
        ready.touch()
    return str(venv / "bin" / "python")


def write_split(folder: Path, take: int, source: str) -> None:
    """The first `take` digits of a committed split."""
    folder.mkdir(parents=True)
    for file, header, item in (("images-idx3-ubyte.gz", 16, 784), ("labels-idx1-ubyte.gz", 8, 1)):
        content = gzip.decompress((TEMPLATE / "data" / "features" / source / file).read_bytes())
        counted = content[:4] + struct.pack(">I", take) + content[8 : header + take * item]
        (folder / file).write_bytes(gzip.compress(counted))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    write_split(root / "training", 320, "training")
    write_split(root / "validation", 50, "validation")
    write_split(root / "test", 50, "test")
    return root


def run(python: str, out: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KAOS_")}
    return subprocess.run(
        [python, MODEL / "train", out],
        env=clean | {"OMP_NUM_THREADS": "1", "KAOS_CPU": "1"} | env,
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_shape_of_the_template() -> None:
    described = json.loads((TEMPLATE / "template.json").read_text())
    assert set(described) == {"name", "title", "description"}
    assert described["name"] == TEMPLATE.name
    assert os.access(MODEL / "train", os.X_OK)
    assert (MODEL / "train").read_bytes().startswith(b"#!/usr/bin/env python3\n")
    assert (MODEL.parent / "Dockerfile").read_text().startswith("FROM python:")
    assert (TEMPLATE / "README.md").exists()


def test_the_grid_sets_only_parameters_that_exist() -> None:
    static = json.loads((MODEL / "params.json").read_text())
    grid = json.loads((TEMPLATE / "hyperopt" / "params.json").read_text())
    assert grid.keys() <= static.keys()
    trials = 1
    for values in grid.values():
        trials *= len(values) if isinstance(values, list) else 1
    assert trials >= 6


@pytest.mark.slow
def test_a_trial_overrides_params_and_leaves_metrics_and_model(
    python: str, tmp_path: Path, data: Path
) -> None:
    params = tmp_path / "trial.json"
    params.write_text('{"epochs": 2, "channels": 2}')
    env = {"KAOS_DATA_DIR": str(data), "KAOS_PARAMS": str(params)}
    done = run(python, tmp_path / "a", env)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    epochs = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in epochs] == [1, 2]
    final = json.loads((tmp_path / "a" / "metrics" / "metrics.json").read_text())
    assert {"accuracy", "loss", "val_accuracy", "val_loss", "epochs", "seconds"} <= final.keys()
    assert final["epochs"] == 2

    # The same inputs give the same weights, bit for bit.
    run(python, tmp_path / "b", env)
    assert (tmp_path / "a" / "model.pt").read_bytes() == (tmp_path / "b" / "model.pt").read_bytes()


@pytest.mark.slow
def test_other_splits_may_be_missing(python: str, tmp_path: Path, data: Path) -> None:
    shutil.rmtree(data / "test")
    shutil.rmtree(data / "validation")
    params = tmp_path / "trial.json"
    params.write_text('{"epochs": 1, "channels": 2}')
    done = run(python, tmp_path / "out", {"KAOS_DATA_DIR": str(data), "KAOS_PARAMS": str(params)})
    assert done.returncode == 0, done.stderr
    final = json.loads((tmp_path / "out" / "metrics" / "metrics.json").read_text())
    assert "train_loss" in final
    assert "accuracy" not in final
    assert "val_accuracy" not in final


@pytest.mark.slow
@pytest.mark.parametrize(
    ("params", "message"),
    [('{"learnig_rate": 1}', "unknown parameter learnig_rate; known are: "), ("{}", "no training/")],
)
def test_wrong_inputs_are_said_and_leave_nothing(
    python: str, tmp_path: Path, params: str, message: str
) -> None:
    (tmp_path / "trial.json").write_text(params)
    (tmp_path / "empty").mkdir()
    env = {"KAOS_DATA_DIR": str(tmp_path / "empty"), "KAOS_PARAMS": str(tmp_path / "trial.json")}
    done = run(python, tmp_path / "out", env)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_alone_and_as_committed_it_reads_97_percent_of_the_held_out_digits(
    python: str, tmp_path: Path
) -> None:
    done = run(python, tmp_path / "out", {})
    assert done.returncode == 0, done.stderr
    assert str(TEMPLATE / "data") in done.stdout
    final = json.loads((tmp_path / "out" / "metrics" / "metrics.json").read_text())
    assert final["accuracy"] >= 0.97
