"""What is given to a build, and what becomes of a job that a deploy would stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.bundles import write_data, write_source
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake import FakeBackend, Refused
from tests.unit.cli.samples import JOB_ID, job, stage


def test_build_arguments_are_sent_and_shown(
    cli: Cli, backend: FakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    src = write_source(tmp_path / "mnist")
    backend.answer = {"build_args": {"CUDA": "12", "TAG": "a=b"}}
    monkeypatch.setenv("FROM_HERE", "yes")
    given = ["--build-arg", "CUDA=12", "--build-arg", "TAG=a=b", "--build-arg", "FROM_HERE"]
    done = cli("train", "deploy", "-s", src, *given)
    assert done.code == 0, done.err
    assert backend.deploys[0]["build_args"] == {"CUDA": "12", "TAG": "a=b", "FROM_HERE": "yes"}
    assert "args    CUDA=12, TAG=a=b\n" in done.out
    cli("train", "deploy", "--no-build-args")
    cli("train", "deploy", "-s", src)
    assert [sent["build_args"] for sent in backend.deploys[1:]] == [{}, None]
    for wrong in ("NO_SUCH_THING", "9=x", "=x", "a b=c"):
        refused = cli("train", "deploy", "-s", src, "--build-arg", wrong)
        assert (refused.code, len(backend.deploys)) == (2, 3), wrong


def test_build_secrets_are_read_here_and_never_typed_or_shown(
    cli: Cli, backend: FakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    src = write_source(tmp_path / "mnist")
    backend.answer = {"build_secrets": ["A", "pip.conf"]}
    monkeypatch.setenv("A", "hunter22")
    monkeypatch.setenv("OTHER", "an other")
    (tmp_path / "file").write_text("two\nlines\n")
    given = ["A", "id=B,env=OTHER", f"type=file,id=pip.conf,src={tmp_path}/file"]
    done = cli("train", "deploy", "-s", src, *(part for one in given for part in ("--secret", one)))
    assert done.code == 0, done.err
    sent = {"A": "hunter22", "B": "an other", "pip.conf": "two\nlines\n"}
    assert backend.deploys[0]["build_secrets"] == sent
    assert "secrets A, pip.conf\n" in done.out
    assert "hunter22" not in done.out + done.err
    assert cli("train", "deploy", "--no-secrets").code == 0
    assert backend.deploys[1]["build_secrets"] == {}
    (tmp_path / "binary").write_bytes(b"\xff")
    wrong = ["A=hunter33", "id=A,env=NO_SUCH", "NO_SUCH", "id=A,src=/no/such", f"id=A,src={tmp_path}/binary"]
    for one in [*wrong, "id=A,env=A,src=x", "id=a b,env=A", ""]:
        refused = cli("train", "deploy", "-s", src, "--secret", one)
        assert (refused.code, len(backend.deploys)) == (2, 2), one
        assert "hunter33" not in refused.out + refused.err


def open_job() -> None:
    raise Refused(409, "job_open", "job 4f1c0de2 has not ended", "--after or --replace", jobs=[JOB_ID])


def test_a_job_that_would_be_stopped_is_named(cli: Cli, backend: FakeBackend, tmp_path: Path) -> None:
    backend.fail_once("POST /workspaces/default/deploys", open_job)
    done = cli("train", "deploy", "-d", write_data(tmp_path / "d"))
    assert (done.code, backend.deploys) == (1, [])
    assert "job 4f1c0de2 has not ended" in done.err
    assert cli("train", "deploy", "--cpu", "1", "--replace").code == 0
    assert backend.deploys[-1]["replace"] is True
    assert cli("train", "deploy", "--cpu", "1", "--replace", "--after").code == 2


def test_after_deploys_when_the_job_has_ended(
    cli: Cli, backend: FakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kaos_cli import watch

    monkeypatch.setattr(watch, "PAUSE_MAX_S", 0.001)
    backend.jobs["default"] = [job("running", stages=[stage("running", 3, 1)])]
    asked = "GET /workspaces/default/jobs/" + JOB_ID + "/summary"

    def ends() -> None:
        assert backend.deploys == []
        backend.jobs["default"] = [job("failed")]

    for fault in (open_job, open_job):
        backend.fail_once("POST /workspaces/default/deploys", fault)
    for seen in (lambda: None, ends):
        backend.fail_once(asked, seen)
    done = cli("train", "deploy", "-d", write_data(tmp_path / "d"), "--after")
    assert done.code == 0, done.err
    assert "waiting for the end of job 4f1c0de2" in done.err
    assert [sent["replace"] for sent in backend.deploys] == [False]


def test_after_waits_no_longer_than_asked(cli: Cli, backend: FakeBackend, tmp_path: Path) -> None:
    backend.jobs["default"] = [job("running", stages=[stage("running", 3, 1)])]
    backend.fail_once("POST /workspaces/default/deploys", open_job)
    done = cli("train", "deploy", "-d", write_data(tmp_path / "d"), "--after", "--wait-timeout", "1s")
    assert (done.code, backend.deploys) == (124, [])
    assert "nothing was deployed, and job 4f1c0de2 goes on" in done.err
