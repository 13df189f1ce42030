"""Logs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pachyderm_sdk.api import pps

from tests.parity.pachd import NOT_FOUND, UNKNOWN, Pachd, eventually, file, in_thread, is_set, refused

pytestmark = pytest.mark.workers("waits for jobs")

TALK = "echo out of $(basename $data); echo err of $(basename $data) >&2"


@pytest.fixture(autouse=True)
def data(pachd: Pachd) -> None:
    pachd.repo("data", {"/1": b"one", "/2": b"two"})


@pytest.fixture
def job(pachd: Pachd) -> pps.Job:
    """An ended job of a pipeline that talked, its logs at hand."""
    pipeline = pachd.pipeline("p", TALK, {"data": "/*"})
    found = pachd.succeeded(pipeline).job
    # Elsewhere logs travel through a store of their own.
    eventually(lambda: len(list(pachd.said(pipeline=pipeline, job=found))) == 4, "the lines arrive")
    return found


def test_both_streams_line_by_line(pachd: Pachd, job: pps.Job) -> None:
    """§15: stdout and stderr, one message a line, with where they come from."""
    messages = [m for m in pachd.client.pps.get_logs(pipeline=job.pipeline, job=job) if m.user]
    assert sorted(m.message for m in messages) == ["err of 1", "err of 2", "out of 1", "out of 2"]
    for message in messages:
        assert (message.project_name, message.pipeline_name) == (pachd.project.name, "p")
        assert (message.job_id, message.master) == (job.id, False)
        assert [one.path for one in message.data] == [f"/{message.message[-1]}"]
        assert is_set(message.ts)


def test_of_one_datum(pachd: Pachd, job: pps.Job) -> None:
    """§15: by id, and by a file it read."""
    datum = next(d for d in pachd.client.pps.list_datum(job=job) if d.data[0].file.path == "/2")
    wanted = {"out of 2", "err of 2"}
    assert set(pachd.said(pipeline=job.pipeline, job=job, datum=datum.datum)) == wanted
    assert set(pachd.said(pipeline=job.pipeline, job=job, data_filters=["/2"])) == wanted


def test_of_a_pipeline(pachd: Pachd, job: pps.Job) -> None:
    """§15: all of its jobs."""
    assert "out of 1" in set(pachd.said(pipeline=job.pipeline))


def test_of_the_master(pachd: Pachd, job: pps.Job) -> None:
    """§15: `master` shows its lines and no others."""
    messages = list(pachd.client.pps.get_logs(pipeline=job.pipeline, job=job, master=True))
    assert messages
    assert all(message.master and not message.user for message in messages)


def test_the_last_lines(pachd: Pachd, job: pps.Job) -> None:
    """§15: `tail` of each worker."""
    datum = next(iter(pachd.client.pps.list_datum(job=job))).datum
    assert len(list(pachd.client.pps.get_logs(pipeline=job.pipeline, job=job, datum=datum, tail=1))) == 1


def test_following(pachd: Pachd) -> None:
    """§15: lines come while the datum runs."""
    pipeline = pachd.pipeline("p", "echo first; sleep 600", {"data": "/1"})
    job = pachd.running(pipeline).job
    client = pachd.another_client()

    def first() -> str:
        stream = client.pps.get_logs(pipeline=pipeline, job=job, follow=True)
        return next(str(message.message) for message in stream if message.user)

    thread, results = in_thread(first)
    thread.join(300)
    assert results == ["first"]
    assert pachd.client.pps.inspect_job(job=job).state == pps.JobState.JOB_RUNNING


def test_what_cannot_be_asked(pachd: Pachd, job: pps.Job) -> None:
    """§15: a datum alone, a job of another pipeline."""
    with refused(UNKNOWN, "must specify the Job or Pipeline"):
        list(pachd.client.pps.get_logs(datum=pps.Datum(id="0" * 64)))
    other = pps.Job(pipeline=pps.Pipeline(name="q", project=pachd.project), id=job.id)
    with refused(UNKNOWN, "wrong pipeline"):
        list(pachd.client.pps.get_logs(pipeline=job.pipeline, job=other))


def test_since(pachd: Pachd, job: pps.Job) -> None:
    """§15: nothing older than that."""
    logs = pachd.client.pps.get_logs
    assert list(logs(pipeline=job.pipeline, since=timedelta(hours=1)))
    newest = max(message.ts for message in logs(pipeline=job.pipeline, job=job))
    eventually(lambda: datetime.now(UTC) - newest > timedelta(seconds=1), "a moment passes")
    assert not list(logs(pipeline=job.pipeline, since=timedelta(milliseconds=500)))


def test_by_the_hash_of_a_file(pachd: Pachd, job: pps.Job) -> None:
    """§15: data_filters, each equal to some input's path or hash; all of them must be."""
    hash_ = pachd.client.pfs.inspect_file(file=file(pachd.commit("data"), "/2")).hash.hex()
    assert set(pachd.said(pipeline=job.pipeline, job=job, data_filters=[hash_])) == {"out of 2", "err of 2"}
    assert not list(pachd.said(pipeline=job.pipeline, job=job, data_filters=[hash_, "/1"]))


def test_of_the_server(pachd: Pachd) -> None:
    """§15: its own lines, with nothing but a message, when nothing is asked for."""
    first = next(iter(pachd.client.pps.get_logs(tail=1)))
    assert first.message
    assert (first.pipeline_name, first.job_id, first.user) == ("", "", False)


def test_backends_are_alike(pachd: Pachd, job: pps.Job) -> None:
    """§15: use_loki_backend asks for the same lines from another place."""
    assert set(pachd.said(pipeline=job.pipeline, job=job, use_loki_backend=True)) == set(
        pachd.said(pipeline=job.pipeline, job=job)
    )


def test_what_is_missing(pachd: Pachd) -> None:
    """§14: of a pipeline or a job that is not there."""
    with refused(NOT_FOUND):
        list(pachd.client.pps.get_logs(pipeline=pps.Pipeline(name="none", project=pachd.project)))


def test_following_yields_what_there_is(pachd: Pachd, job: pps.Job) -> None:
    """§15: at least a message of a pipeline, of the master, and of a job; then it waits for more."""
    for of in ({}, {"master": True}, {"job": job}):
        stream = pachd.client.pps.get_logs(pipeline=job.pipeline, follow=True, **of)
        message = next(iter(stream))
        assert (message.pipeline_name, message.master) == ("p", "master" in of)
        stream.close()
