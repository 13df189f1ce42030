"""GetLogs before, during and after a run."""

from __future__ import annotations

import threading
from datetime import timedelta

import grpc
import pytest
from pachyderm_sdk.api import pfs, pps

from tests.integration.engine.conftest import Engine
from tests.integration.engine.test_endings import PATIENT
from tests.support.waiting import eventually

TALK = """
echo out of $(basename $a)
echo err of $(basename $a) >&2
printf 'no newline'
"""


def user_lines(messages: list[pps.LogMessage]) -> list[str]:
    return [m.message for m in messages if m.user]


def test_lines_carry_where_they_come_from(engine: Engine) -> None:
    engine.repo("a", {"/1": b"1", "/2": b"2"})
    pipeline = engine.pipeline("p", TALK, {"a": "/*"})
    job = engine.wait("p").job
    messages = list(engine.client.pps.get_logs(pipeline=pipeline, job=job))
    assert sorted(user_lines(messages)) == [
        "err of 1",
        "err of 2",
        "no newline",
        "no newline",
        "out of 1",
        "out of 2",
    ]
    one = next(m for m in messages if m.message == "out of 1")
    assert (one.project_name, one.pipeline_name, one.job_id, one.user, one.master) == (
        "default",
        "p",
        job.id,
        True,
        False,
    )
    assert [f.path for f in one.data] == ["/1"]
    assert one.ts.year > 2000
    # Filters.
    datum = pps.Datum(job=job, id=one.datum_id)
    assert "out of 2" not in user_lines(
        list(engine.client.pps.get_logs(pipeline=pipeline, job=job, datum=datum))
    )
    by_path = list(engine.client.pps.get_logs(pipeline=pipeline, job=job, data_filters=["/2"]))
    assert "out of 2" in user_lines(by_path)
    assert "out of 1" not in user_lines(by_path)
    assert len(list(engine.client.pps.get_logs(pipeline=pipeline, job=job, datum=datum, tail=1))) == 1
    master = list(engine.client.pps.get_logs(pipeline=pipeline, job=job, master=True))
    assert master
    assert all(m.master and not m.user for m in master)
    # Of the pipeline as a whole, and of nothing younger than now.
    assert user_lines(list(engine.client.pps.get_logs(pipeline=pipeline)))
    old = engine.client.pps.get_logs(pipeline=pipeline, job=job, since=timedelta(microseconds=1))
    assert list(old) == []


def test_a_job_that_waits_has_no_lines_yet(engine: Engine) -> None:
    engine.repo("a", {"/1": b"1"})
    pipeline = engine.pipeline("p", TALK, {"a": "/*"})
    engine.wait("p")
    open_commit = engine.client.pfs.start_commit(branch=pfs.Branch.from_uri("a@master"))
    job = pps.Job(pipeline=pipeline, id=open_commit.id)
    assert list(engine.client.pps.get_logs(pipeline=pipeline, job=job)) == []


def test_following_a_job_sees_lines_as_they_come_and_ends_with_it(engine: Engine) -> None:
    engine.repo("a", {"/1": b"1"})
    script = "echo first\n" + PATIENT + "\necho last"
    pipeline = engine.pipeline("p", script, {"a": "/*"})
    job = engine.job_when("p", pps.JobState.JOB_RUNNING).job
    got: list[str] = []
    stream = engine.client.pps.get_logs(pipeline=pipeline, job=job, follow=True)

    def read() -> None:
        for message in stream:
            if message.user:
                got.append(message.message)  # noqa: PERF401 - seen by the test while it grows

    reader = threading.Thread(target=read)
    reader.start()
    eventually(lambda: got == ["first"], "the first line arrives while the datum runs")
    assert engine.last_job("p").state == pps.JobState.JOB_RUNNING
    (engine.side / "go").touch()
    reader.join(20)
    assert not reader.is_alive()
    assert got == ["first", "last"]


def test_a_skipped_datum_shows_the_lines_of_the_job_that_ran_it(engine: Engine) -> None:
    engine.repo("a", {"/1": b"1"})
    pipeline = engine.pipeline("p", TALK, {"a": "/*"})
    first = engine.wait("p").job
    engine.client.pps.rerun_pipeline(pipeline=pipeline)
    job = engine.wait("p").job
    (datum,) = engine.client.pps.list_datum(job=job)
    assert datum.state == pps.DatumState.SKIPPED
    messages = list(engine.client.pps.get_logs(pipeline=pipeline, job=job, datum=datum.datum))
    assert "out of 1" in user_lines(messages)
    assert {m.job_id for m in messages} == {first.id}
    assert list(engine.client.pps.get_logs(pipeline=pipeline, job=job)) == []


def test_what_cannot_be_asked_is_refused(engine: Engine) -> None:
    engine.repo("a", {"/1": b"1"})
    pipeline = engine.pipeline("p", TALK, {"a": "/*"})
    job = engine.wait("p").job
    cases = [
        ({"datum": pps.Datum(id="0" * 64)}, "must specify the Job or Pipeline"),
        ({"pipeline": pps.Pipeline(name="q"), "job": job}, "not found"),
        (
            {"pipeline": pipeline, "job": pps.Job(pipeline=pps.Pipeline(name="q"), id=job.id)},
            "wrong pipeline",
        ),
    ]
    for arguments, text in cases:
        with pytest.raises(grpc.RpcError, match=text):
            list(engine.client.pps.get_logs(**arguments))
