"""What others do to a job's commits and runs while it is at work."""

from __future__ import annotations

import errno
import threading
from typing import Any

import pytest
from pachyderm_sdk.api import pfs, pps

from kaos_backend.engine.errors import DataLoss
from kaos_backend.engine.jobs import controller
from kaos_backend.engine.jobs.run import datum as datums
from kaos_backend.engine.jobs.run import logs
from kaos_backend.engine.jobs.run.inputs import InputCache
from kaos_backend.engine.store.model import RepoKey
from kaos_backend.engine.store.store import Store, Txn
from kaos_formats import folders
from tests.integration.engine.conftest import Engine
from tests.support.waiting import eventually

SLOW = """
echo $(basename $a) >> $SIDE/runs
touch $SIDE/running
while [ ! -e $SIDE/go ]; do sleep 0.02; done
cat $a > $OUT/$(basename $a)
"""


@pytest.mark.parametrize("repo_type", ["user", "meta"])
def test_a_job_whose_commit_a_client_finished_still_ends(engine: Engine, repo_type: str) -> None:
    engine.repo("a", {"/1": b"1"})
    engine.pipeline("p", SLOW, {"a": "/*"})
    engine.ran("running")
    repo = pfs.Repo(name="p", type=repo_type, project=pfs.Project(name="default"))
    commit = pfs.Commit(repo=repo, id=engine.last_job("p").job.id)
    engine.client.pfs.finish_commit(commit=commit, force=True)
    (engine.side / "go").touch()
    ended = eventually(
        lambda: (j := engine.last_job("p")).state == pps.JobState.JOB_SUCCESS and j, "the job ends"
    )
    assert ended.data_processed == 1


def test_a_job_waits_for_what_a_killed_one_still_stores(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing, store_it, real = threading.Event(), threading.Event(), Store.stage

    def stage(*args: Any) -> Any:
        storing.set()
        assert store_it.wait(20)
        return real(*args)

    monkeypatch.setattr(Store, "stage", stage)
    engine.repo("a", {"/1": b"1"})
    pipeline = engine.pipeline("p", "echo 1 >> $SIDE/runs; cat $a > $OUT/x", {"a": "/*"})
    assert storing.wait(20)
    killed = engine.last_job("p").job
    engine.client.pps.stop_job(job=killed)
    engine.client.pps.rerun_pipeline(pipeline=pipeline)
    waits = "waits for a stopped job of the same pipeline to store what it has finished"
    eventually(lambda: engine.last_job("p").reason == waits, "the next job says what it waits for")
    store_it.set()
    job = engine.wait("p")
    assert (job.state, job.data_skipped) == (pps.JobState.JOB_SUCCESS, 1)
    assert engine.runs() == ["1"]
    # It came too late for the job that ran it, which says so.
    assert list(engine.client.pps.list_datum(job=killed)) == []
    assert engine.client.pps.inspect_job(job=killed).data_processed == 0


def test_a_job_whose_output_meets_damage_ends_by_name(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def merge(*_: Any, **__: Any) -> Any:
        raise DataLoss(b"\1" * 32, "damaged", "/x")

    engine.repo("a", {"/1": b"1", "/2": b"2"})
    with monkeypatch.context() as damaged:
        damaged.setattr(Txn, "merge", merge)
        pipeline = engine.pipeline("p", "cat $a > $OUT/$(basename $a)", {"a": "/*"})
        job = engine.wait("p")
    assert job.state == pps.JobState.JOB_FAILURE
    assert job.reason.startswith("its output could not be put together: ")
    assert "/x" in job.reason
    finished = job.data_processed
    assert finished >= 1
    engine.client.pps.rerun_pipeline(pipeline=pipeline)
    job = engine.wait("p")
    # Whatever had been finished is there for the next one.
    assert (job.state, job.data_skipped) == (pps.JobState.JOB_SUCCESS, finished)
    assert engine.files("p") == {"/1": b"1", "/2": b"2"}


def test_trouble_of_the_engine_does_not_fail_a_trial(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    left, guard = {"stage": 1, "inputs": 1, "begin": 1, "note": 100, "clean": 100}, threading.Lock()

    def failing(name: str, real: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            with guard:
                left[name] -= 1
                fails = left[name] >= 0
            if fails:
                raise OSError(errno.EMFILE, "Too many open files")
            return real(*args, **more)

        return call

    monkeypatch.setattr(Store, "stage", failing("stage", Store.stage))
    monkeypatch.setattr(logs, "append", failing("note", logs.append))
    monkeypatch.setattr(folders, "_remove_folder", failing("clean", folders._remove_folder))
    monkeypatch.setattr(InputCache, "small", failing("inputs", InputCache.small))
    monkeypatch.setattr(datums, "by_name", failing("begin", datums.by_name))
    engine.repo("a", {"/1": b"1"})
    engine.pipeline("p", "echo 1 >> $SIDE/runs; cat $a > $OUT/x", {"a": "/*"})
    job = engine.wait("p")
    assert (job.state, job.data_processed) == (pps.JobState.JOB_SUCCESS, 1)
    assert engine.runs() == ["1"]
    assert max(left["stage"], left["inputs"], left["begin"]) < 0


@pytest.mark.parametrize("kind", ["job-", "datum-"])
def test_a_job_that_finds_no_thread_is_tried_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    refused: list[str] = []
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith(kind) and not refused:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(controller, "_ERROR_S", 0.05)
    monkeypatch.setattr(threading.Thread, "start", start)
    engine.repo("a", {"/1": b"1"})
    engine.pipeline("p", "cat $a > $OUT/x", {"a": "/*"})
    assert engine.wait("p").state == pps.JobState.JOB_SUCCESS
    assert refused


def test_a_repo_that_vanishes_while_repos_are_listed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        engine.repo(name, {"/1": b"1"})
    real = Store.list_repos

    def listed(store: Store, *args: Any) -> Any:
        found = real(store, *args)
        with store.write() as txn:
            txn.delete_repo(RepoKey("default", "b"), force=True)
        return found

    monkeypatch.setattr(Store, "list_repos", listed)
    assert {info.repo.name for info in engine.client.pfs.list_repo()} == {"a", "c"}
