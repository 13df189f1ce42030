"""`kaos train stop|retry|pause|resume|shell`."""

from __future__ import annotations

import pytest

from kaos_cli import foreground
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake import FakeBackend
from tests.unit.cli.samples import JOB_ID


def test_stop(cli: Cli, two: FakeBackend) -> None:
    assert cli("train", "stop", "77777777").out == "job 77777777 is killed\n"
    assert cli("train", "stop", "-j", JOB_ID, "--json").json["state"] == "killed"


def test_stop_one_trial(cli: Cli, two: FakeBackend) -> None:
    done = cli("train", "stop", JOB_ID, "--trial", 1)
    assert done.out == "trial 1 of job 4f1c0de2 is failed: stopped by the user\n"
    assert two.requests[-1] == f"POST /workspaces/default/jobs/{JOB_ID}/trials/1/stop"


def test_retry(cli: Cli, two: FakeBackend) -> None:
    done = cli("train", "retry", JOB_ID, "--failed")
    assert done.out == (
        f"job     {'5' * 32}  (runs train)\n"
        "        what did not succeed in job 4f1c0de2, on the inputs that it had\n"
    )
    assert "kaos train logs -f follows it" in done.err
    two.answer = {
        "status": "unchanged",
        "job": JOB_ID,
        "message": "every trial of it succeeded",
        "stages": [],
    }
    assert cli("train", "retry", JOB_ID).out == (
        "nothing to run again in job 4f1c0de2: every trial of it succeeded\n"
    )
    assert cli("train", "retry", JOB_ID, "--json").json["status"] == "unchanged"
    assert cli("train", "retry", "--wait-timeout", "5s").code == 2


def test_pause_and_resume(cli: Cli, backend: FakeBackend) -> None:
    done = cli("train", "pause")
    assert done.out == "workspace default is paused: what runs goes on, nothing new starts\n"
    assert "kaos train resume lets it go on" in done.err
    assert cli("train", "pause", "--all", "--json").json["everywhere"] is True
    backend.answer = {"everywhere": True}
    assert "but all workspaces are" in cli("train", "resume").out
    backend.answer = {}
    assert cli("train", "resume", "--all").out == ("nothing is paused: what waits starts as there is room\n")


def test_a_shell_needs_a_terminal(cli: Cli, two: FakeBackend) -> None:
    done = cli("train", "shell", JOB_ID, "--trial", 0)
    assert done.code == 2
    assert "needs a terminal" in done.err
    assert not two.requests


def test_a_terminal_that_knows_no_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.get_terminal_size", lambda _: (0, 0))
    assert foreground._size() == (80, 24)
