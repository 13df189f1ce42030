"""`kaos train get`: which models, and the files that come of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake import FakeBackend, Refused
from tests.unit.cli.samples import JOB_ID, archive, job, trial


def test_get_writes_models_code_and_data(cli: Cli, two: FakeBackend, tmp_path: Path) -> None:
    model = "1909d1-5c3ca7-00000000"
    two.archives = {
        "model": archive({f"{model}/metrics.json": b"{}", f"{model}/w.bin": bytes(range(256))}),
        "code": archive({"mnist/train": b"#!"}, executable=("mnist/train",)),
        "data": archive({"features/a.csv": b"1,2"}),
    }
    out = tmp_path / "out"
    done = cli("train", "get", JOB_ID, "--code", "--data", "-o", out)
    assert done.code == 0, done.err
    assert (out / model / "w.bin").read_bytes() == bytes(range(256))
    assert (out / "code/mnist/train").stat().st_mode & 0o111
    assert (out / "data/features/a.csv").read_bytes() == b"1,2"
    assert done.out.splitlines()[0] == f"model   {model}  2 files, 258 B  → {out / model}"
    assert cli("train", "get", JOB_ID, "--code", "--data", "-o", out).code == 0
    (out / model / "w.bin").write_bytes(b"mine")
    refused = cli("train", "get", JOB_ID, "-o", out)
    assert refused.code == 2
    assert "--force" in refused.err
    assert cli("train", "get", JOB_ID, "-o", out, "--force", "--json").json["written"]["model"]["files"] == 2


class Damaged(dict[str, bytes]):
    """Archives that break off at damaged content; from then on it is known, and said at once."""

    known = False

    def __getitem__(self, what: str) -> bytes:
        if self.known:
            raise Refused(500, "data_loss", "/m/f in repo vision/train is damaged", "kaos fsck")
        self.known = True
        return super().__getitem__(what)[:-100]


def test_get_says_what_is_damaged(cli: Cli, two: FakeBackend, tmp_path: Path) -> None:
    two.archives = Damaged(model=archive({"m/f": os.urandom(10_000)}))
    done = cli("train", "get", JOB_ID, "-o", tmp_path / "out")
    assert done.code == 1
    assert "/m/f in repo vision/train is damaged" in done.err
    assert not (tmp_path / "out").exists()


def test_get_writes_beside_you_by_default(
    cli: Cli, two: FakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    two.archives = {"model": archive({"m/f": b""})}
    assert cli("train", "get", JOB_ID).code == 0
    assert (tmp_path / "kaos-4f1c0de2/m/f").exists()


@pytest.mark.parametrize(
    ("wanted", "picked"),
    [("best", 1), ("0", 0), ("1909d1-5c3ca7-00000001", 1), ("9", "no_such_model"), ("1909d1", "ambiguous"),
     ("zz", "no_such_model"), ("2", "failed")],
)  # fmt: skip
def test_get_picks_the_model(
    cli: Cli, backend: FakeBackend, tmp_path: Path, wanted: str, picked: int | str
) -> None:
    trials = [trial(0, accuracy=0.5), trial(1, accuracy=0.9), trial(2, "failed", None)]
    backend.jobs["default"] = [job(trials=trials)]
    backend.archives = {"model": archive({"m/f": b""})}
    done = cli("train", "get", "--model", wanted, "-o", tmp_path / "out", "--json")
    if isinstance(picked, int):
        assert done.json["model"] == trials[picked]["model"]
    else:
        assert json.loads(done.err)["error"]["code"] == picked


def test_best_is_the_lowest_when_lower_is_better(cli: Cli, backend: FakeBackend, tmp_path: Path) -> None:
    trials = [trial(0, accuracy=0.5), trial(1, accuracy=0.9), trial(2, accuracy=None)]
    backend.jobs["default"] = [job(trials=trials, metric={"name": "loss", "order": "asc", "guessed": True})]
    backend.archives = {"model": archive({"m/f": b""})}
    done = cli("train", "get", "--model", "best", "-o", tmp_path / "out", "--json")
    assert done.json["model"] == trials[1]["model"]


def test_get_of_a_job_without_models(cli: Cli, backend: FakeBackend, tmp_path: Path) -> None:
    backend.jobs["default"] = [job("failed", [trial(0, "failed", None)], metric=None, metrics=[])]
    backend.archives = {"code": archive({"mnist/train": b""})}
    done = cli("train", "get", "-o", tmp_path / "out")
    assert done.code == 1
    assert "has no models" in done.err
    assert not (tmp_path / "out").exists()
    assert cli("train", "get", "-o", tmp_path / "out", "--code").code == 0


class Without(dict[str, bytes]):
    """Archives of a job whose trials are done and wrote nothing."""

    def __missing__(self, what: str) -> bytes:
        raise Refused(404, "no_such_model", "this job has no models: no trial succeeded and wrote files")


def test_get_code_and_data_of_a_job_whose_trials_wrote_nothing(
    cli: Cli, two: FakeBackend, tmp_path: Path
) -> None:
    two.archives = Without(code=archive({"mnist/train": b"#!"}), data=archive({"d/a.csv": b"1,2"}))
    done = cli("train", "get", JOB_ID, "--data", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert "has no models" in done.err
    assert done.out.startswith("data ")
    assert (tmp_path / "out/data/d/a.csv").read_bytes() == b"1,2"
    assert cli("train", "get", JOB_ID, "-o", tmp_path / "none").code == 3
    named = cli("train", "get", JOB_ID, "--data", "--model", "0", "-o", tmp_path / "none")
    assert named.code == 3, "whoever names one wants that one"
    assert not (tmp_path / "none").exists()


def test_get_what_failed_trials_left(cli: Cli, two: FakeBackend, tmp_path: Path) -> None:
    model = "1909d1-5c3ca7-00000001"
    two.archives = {"failed": archive({f"{model}/half": b"h"})}
    out = tmp_path / "out"
    done = cli("train", "get", JOB_ID, "--failed", "--trial", 1, "-o", out)
    assert done.out == f"failed  1 trial  1 file, 1 B  → {out}\n"
    assert (out / model / "half").read_bytes() == b"h"
    two.archives |= {"code": archive({"c/train": b"c"})}
    assert f"→ {out / 'failed'}\n" in cli("train", "get", JOB_ID, "--failed", "--code", "-o", out).out
    assert (out / "failed" / model / "half").read_bytes() == b"h"
    assert cli("train", "get", JOB_ID, "--failed", "--trial", 0).code == 1
    assert cli("train", "get", JOB_ID, "--failed", "--model", "best").code == 2
