"""`--wait`: how a job is followed, what its end says, and what becomes of it when nobody waits any more."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.bundles import write_data
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake import FakeBackend, Refused
from tests.unit.cli.samples import JOB_ID, job, stage, trial


def test_wait_ends_with_a_leaderboard_and_the_outcome(cli: Cli, backend: FakeBackend, tmp_path: Path) -> None:
    trials = [
        trial(1, accuracy=0.97, lr=0.1),
        trial(0, accuracy=0.9, lr=0.01),
        trial(2, "failed", None, lr=9),
    ]
    backend.jobs["default"] = [job("partial", trials, stages=[stage("success", 3, 2, 1)])]
    done = cli("train", "deploy", "-d", write_data(tmp_path / "d"), "--wait")
    assert done.code == 1
    table = done.out[done.out.index("trial  model") :]
    assert table == (
        "trial  model                   state      lr  accuracy  loss  time\n"
        "    1  1909d1-5c3ca7-00000001  success   0.1      0.97  0.03  1.5s\n"
        "    0  1909d1-5c3ca7-00000000  success  0.01       0.9   0.1  1.5s\n"
        "    2  1909d1-5c3ca7-00000002  failed      9                  1.5s\n"
        "sorted by accuracy, highest first (a guess; --asc turns it)\n"
        "trial 2 failed: exit code 1\n"
        "job 4f1c0de2 partial, took 12s\n"
    )
    assert "kaos train logs 4f1c0de2 --trial 2" in done.err
    assert "kaos train get --model best" in done.err


def test_wait_on_what_is_unchanged_gives_the_same_outcome(
    cli: Cli, backend: FakeBackend, tmp_path: Path
) -> None:
    backend.answer = {"status": "unchanged"}
    backend.jobs["default"] = [job()]
    done = cli("train", "deploy", "-d", write_data(tmp_path / "d"), "--wait", "--json")
    assert done.code == 0
    assert done.json["result"]["state"] == "success"


def test_wait_outlives_an_engine_that_comes_back(
    cli: Cli, backend: FakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kaos_cli import watch

    monkeypatch.setattr(watch, "PAUSE_MAX_S", 0.001)
    backend.jobs["default"] = [job()]

    def away() -> None:
        raise Refused(503, "engine_unavailable")

    for fault in (away, lambda: "drop", away):
        backend.fail_once(f"GET /workspaces/default/jobs/{JOB_ID}/summary", fault)
    assert cli("train", "deploy", "-d", write_data(tmp_path / "d"), "--wait").code == 0


def test_wait_shows_the_step_that_the_build_is_at(
    cli: Cli, backend: FakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kaos_cli import progress

    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    building = [stage("running", 1, 0, name="build"), stage("waiting", 1, 0)]
    backend.jobs["default"] = [job("running", stages=building)]
    backend.log_lines = [
        {"stage": "build", "text": said}
        for said in ("Step 1/3 : FROM python", "Step 2/3 : RUN pip install torch", "Collecting torch")
    ]

    def built() -> None:
        backend.jobs["default"] = [job()]

    backend.fail_once(f"GET /workspaces/default/jobs/{JOB_ID}/logs", built)
    done = cli("train", "deploy", "-d", write_data(tmp_path / "d"), "--wait")
    assert done.code == 0
    assert "build: 2 of 3, RUN pip install torch" in done.err


def test_many_trials_show_the_best_ten(cli: Cli, backend: FakeBackend, tmp_path: Path) -> None:
    backend.jobs["default"] = [job(trials=[trial(i, lr=i) for i in range(30)])]
    out = cli("train", "deploy", "-d", write_data(tmp_path / "d"), "--wait").out
    assert "the first 10 of 30 trials" in out
    assert out.count("1909d1-5c3ca7") == 10


def test_ctrl_c_detaches_and_says_how_to_come_back(backend: FakeBackend, tmp_path: Path) -> None:
    import signal

    asked = threading.Event()
    backend.jobs["default"] = [job("running", stages=[stage("running", 3, 1)])]

    def seen() -> None:
        asked.set()

    backend.fail_once(f"GET /workspaces/default/jobs/{JOB_ID}/summary", seen)  # type: ignore[arg-type]
    waiting = subprocess.Popen(
        [sys.executable, "-m", "kaos_cli", "train", "deploy", "-d", write_data(tmp_path / "d"), "--wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert asked.wait(30)
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=30)
    assert waiting.returncode == 130
    assert f"job {JOB_ID[:8]} goes on" in err
    assert f"  → kaos train wait {JOB_ID[:8]} comes back\n" in err
    assert f"  → kaos train stop {JOB_ID[:8]} ends it\n" in err
    assert "Traceback" not in err
    assert not any(request.endswith("/stop") for request in backend.requests)


def test_the_exit_code_is_the_jobs_when_nobody_reads(backend: FakeBackend, tmp_path: Path) -> None:
    backend.jobs["default"] = [job("failed", [trial(0, "failed", None)])]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-u", "-m", "kaos_cli", "train", "wait"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    assert done.returncode == 1
    assert "Error" not in done.stderr
