"""The mnist template: the README's walk through it, and its `train` as a program of its own, without kaos.

All of it is in one file for the sake of one environment: to install torch takes longer than the rest.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.home import KAOS, ROOT, Home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # whichever is first installs torch

README = (ROOT / "README.md").read_text()
TEMPLATE = ROOT / "templates" / "mnist"
MODEL = TEMPLATE / "model-train" / "mnist" / "model"


@dataclass(frozen=True)
class Shown:
    command: str
    output: str


def shown(block: str) -> Iterator[Shown]:
    """The commands (lines that start with `$ `) of a console block, each with the output below it."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.replace("\\\n", " ").partition("\n")
        yield Shown(command.strip(), output)


def blocks() -> list[list[Shown]]:
    return [list(shown(block)) for block in re.findall(r"^```console\n(.*?)^```", README, re.M | re.S)]


def shape(text: str) -> list[str]:
    """Lines without what differs from run to run: ids, figures, units, and the widths that follow them."""
    text = re.sub(r"\b[0-9a-f]{6}-[0-9a-f]{6}-[0-9a-f]{8}\b", "MODEL", text)
    text = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{6,}\b|\b[a-f]{6}\b", "ID", text)
    text = re.sub(r"\S+@\S+", "AUTHOR", text)
    text = re.sub(r"\b(\d+h)?\d+m\d+s\b", "N", text)
    text = re.sub(r"\d+(\.\d+)?(e-?\d+)?( ?([kMG]i?B|B|ms|s|m|h|min)\b)?", "N", text)
    text = re.sub(r"(N ?)+", "N", text)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return [re.sub(r"[-─━=]{2,}", "--", line) for line in lines if line]


def test_the_walk_through_prints_what_it_shows(home: Home, tmp_path: Path) -> None:
    """The main job, on real digits: every command of the README, in order, in an empty folder."""
    env = home.env | {"PATH": f"{KAOS.parent}:{os.environ['PATH']}"}
    walk = [step for block in blocks() for step in block if step.command.startswith("kaos ")]
    assert len(walk) >= 5
    for step in walk:
        done = subprocess.run(
            shlex.split(step.command), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, f"{step.command}\n{done.stdout}\n{done.stderr}\n{home.logs()}"
        if step.output.strip():
            assert shape(done.stdout) == shape(step.output), step.command

    # `best` is by validation accuracy; which trial is best on the test split differs between processors.
    trials = home.json("train", "info", "--sort-by", "val_accuracy")["trials"]
    assert len(trials) >= 6
    assert trials[0]["metrics"]["accuracy"] >= 0.97
    # And so does what the template sets where no grid does.
    default = json.loads((MODEL / "params.json").read_text())
    (as_committed,) = [trial for trial in trials if trial["params"].items() <= default.items()]
    assert as_committed["metrics"]["accuracy"] >= 0.97
    best = next(tmp_path.rglob("model.pt"))
    assert best.parent.name == trials[0]["model"]
    assert json.loads((best.parent / "metrics/metrics.json").read_text())["accuracy"] >= 0.97


@pytest.fixture(scope="module")
def python(home: Home) -> str:
    """The interpreter of the environment that kaos makes of the template's Dockerfile, once for all."""
    home.run("workspace", "create", "mnist-alone")
    home.run("train", "deploy", "-w", "mnist-alone", "-s", TEMPLATE / "model-train", "--wait", check=False)
    torch = next((home.path / "engine" / "venvs").glob("*/lib/python3*/site-packages/torch"))
    return str(torch.parents[3] / "bin" / "python")


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


def test_alone_it_reads_the_digits_that_come_with_it(python: str, tmp_path: Path) -> None:
    """With fewer epochs: what the same parameters come to does not depend on who starts it."""
    params = tmp_path / "fewer.json"
    params.write_text('{"epochs": 1}')
    done = run(python, tmp_path / "out", {"KAOS_PARAMS": str(params)})
    assert done.returncode == 0, done.stderr
    assert str(TEMPLATE / "data") in done.stdout
    said = json.loads(done.stdout.splitlines()[0].removeprefix("params "))
    assert said == json.loads((MODEL / "params.json").read_text()) | {"epochs": 1}
    final = json.loads((tmp_path / "out" / "metrics" / "metrics.json").read_text())
    assert final["accuracy"] >= 0.9
