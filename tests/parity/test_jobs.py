"""Jobs: how they are made, seen, stopped, and how they end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pachyderm_sdk.api import pfs, pps

from tests.parity.pachd import COPY, NO_ID, NOT_FOUND, SLEEP, UNKNOWN, Pachd, ids, in_thread, is_set, refused

pytestmark = pytest.mark.workers("waits for jobs")

# Fails on what has the word in it.
PICKY = 'if grep -q bad $data; then echo "said $(basename $data)"; exit 7; fi; ' + COPY


@pytest.fixture(autouse=True)
def data(pachd: Pachd) -> None:
    pachd.repo("data", {"/1": b"one", "/2": b"two"})


def test_a_commit_makes_a_job(pachd: Pachd) -> None:
    """§6: the job's id is that of the commit set and of the output commit."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"})
    pachd.succeeded(pipeline)
    commit = pachd.put("data", {"/3": b"three"})
    job = pachd.succeeded(pipeline, commit.id)
    assert job.output_commit.id == commit.id
    assert ids(pachd.client.pfs.list_commit(repo=pachd.named("p")))[0] == commit.id
    assert pachd.read(pachd.commit("p"), "/3") == b"three"


def test_only_what_is_new_runs(pachd: Pachd) -> None:
    """§11.4: the sum of the counters is the number of datums."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"})
    assert pachd.succeeded(pipeline).data_processed == 2
    job = pachd.succeeded(pipeline, pachd.put("data", {"/3": b"three"}).id)
    assert (job.data_total, job.data_processed, job.data_skipped) == (3, 1, 2)
    job = pachd.succeeded(pipeline, pachd.put("data", {"/3": b"changed"}).id)
    assert (job.data_total, job.data_processed, job.data_skipped) == (3, 1, 2)
    assert pachd.read(pachd.commit("p"), "/3") == b"changed"


def test_an_empty_commit_makes_a_job_too(pachd: Pachd) -> None:
    """§6: all of whose datums are skipped."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"})
    pachd.succeeded(pipeline)
    job = pachd.succeeded(pipeline, pachd.put("data", {}).id)
    assert (job.data_processed, job.data_skipped) == (0, 2)


def test_a_datum_that_goes_takes_its_files(pachd: Pachd) -> None:
    """§11.4: output composition."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"})
    pachd.succeeded(pipeline)
    commit = pachd.start("data")
    pachd.client.pfs.delete_file(commit=commit, path="/2")
    pachd.client.pfs.finish_commit(commit=commit)
    pachd.succeeded(pipeline, commit.id)
    assert set(pachd.files(pachd.commit("p"))) == {"/1"}


def test_a_job_waits_for_its_input(pachd: Pachd) -> None:
    """§6: it exists as CREATED or STARTING while an input commit is open."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"})
    pachd.succeeded(pipeline)
    commit = pachd.start("data")
    waits = pps.Job(pipeline=pipeline, id=commit.id)
    assert pachd.client.pps.inspect_job(job=waits).state in (
        pps.JobState.JOB_CREATED,
        pps.JobState.JOB_STARTING,
    )
    pachd.client.pfs.finish_commit(commit=commit)
    pachd.succeeded(pipeline, commit.id)


def test_what_a_job_says_of_itself(pachd: Pachd) -> None:
    """§12: times, and details only on request; the input's commit there is the set's id."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"})
    job = pachd.succeeded(pipeline)
    assert not job.is_set("details")
    job = pachd.succeeded(pipeline, details=True)
    assert job.created <= job.started <= job.finished
    assert job.details.input.pfs.commit == job.job.id
    assert list(job.details.input.to_dict()) == ["pfs"]
    assert job.details.transform.image == pachd.image
    named = pachd.client.pfs.inspect_commit(commit=pachd.commit("data", job.details.input.pfs.commit))
    assert named.commit.id == pachd.head(pachd.branch("data")).id


def test_a_chain(pachd: Pachd) -> None:
    """§14: InspectJobSet in topological order, waiting for all of the set."""
    first = pachd.pipeline("p", "cat $data > $OUT/$(basename $data)p", {"data": "/*"})
    second = pachd.pipeline("q", "cat $p > $OUT/$(basename $p)q", {"p": "/*"})
    pachd.succeeded(first)
    pachd.succeeded(second)
    commit = pachd.put("data", {"/3": b"three"})
    jobs = list(pachd.client.pps.inspect_job_set(job_set=pps.JobSet(id=commit.id), wait=True))
    assert [(job.job.pipeline.name, job.state) for job in jobs] == [
        ("p", pps.JobState.JOB_SUCCESS),
        ("q", pps.JobState.JOB_SUCCESS),
    ]
    assert pachd.read(pachd.commit("q"), "/3pq") == b"three"


def test_a_failed_datum_fails_the_job(pachd: Pachd) -> None:
    """§12: FAILURE with the datum's id; the other's output stays in the errored commit."""
    bad = pachd.put("data", {"/2": b"bad"})
    pipeline = pachd.pipeline("p", PICKY, {"data": "/*"})
    job = pachd.ended(pipeline)
    assert job.state == pps.JobState.JOB_FAILURE
    assert job.reason.startswith("datum ")
    assert (job.data_processed, job.data_failed) == (1, 1)
    output = pachd.client.pfs.inspect_commit(commit=pachd.commit("p", job.job.id))
    assert output.error
    assert set(pachd.files(output.commit)) == {"/1"}
    assert bad.id != job.job.id


def test_what_failed_is_no_base(pachd: Pachd) -> None:
    """§11.4: once the data is mended, all of it is there."""
    pachd.put("data", {"/2": b"bad"})
    pipeline = pachd.pipeline("p", PICKY, {"data": "/*"})
    pachd.ended(pipeline)
    job = pachd.succeeded(pipeline, pachd.put("data", {"/2": b"good"}).id)
    assert job.data_processed + job.data_skipped == job.data_total == 2
    assert pachd.files(pachd.commit("p")) == {"/1": b"one", "/2": b"good"}


def test_downstream_of_a_failure_is_unrunnable(pachd: Pachd) -> None:
    """§12: with the name of the input, and so on downwards."""
    pachd.put("data", {"/2": b"bad"})
    first = pachd.pipeline("p", PICKY, {"data": "/*"})
    second = pachd.pipeline("q", "true", {"p": "/*"})
    third = pachd.pipeline("r", "true", {"q": "/*"})
    assert pachd.ended(first).state == pps.JobState.JOB_FAILURE
    for pipeline, culprit in ((second, "p"), (third, "q")):
        job = pachd.ended(pipeline)
        assert job.state == pps.JobState.JOB_UNRUNNABLE
        assert culprit in job.reason.rpartition(":")[2]


def test_an_errored_input_makes_a_job_unrunnable(pachd: Pachd) -> None:
    """§9.1, recipe A, step 4: abandoning by FinishCommit with an error; the next one builds on the good."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"})
    pachd.succeeded(pipeline)
    commit = pachd.start("data")
    pachd.client.pfs.put_file_from_bytes(commit=commit, path="/half", data=b"")
    pachd.client.pfs.finish_commit(commit=commit, error="given up")
    assert pachd.ended(pipeline, commit.id).state == pps.JobState.JOB_UNRUNNABLE
    pachd.succeeded(pipeline, pachd.put("data", {"/3": b"three"}).id)
    assert set(pachd.files(pachd.commit("p"))) == {"/1", "/2", "/3"}


def test_two_datums_that_write_one_path(pachd: Pachd) -> None:
    """§11.4: the job fails at its end with the commit's error."""
    pipeline = pachd.pipeline("p", "cat $data > $OUT/same", {"data": "/*"})
    job = pachd.ended(pipeline)
    assert job.state == pps.JobState.JOB_FAILURE
    assert "duplicate path output by different datums" in job.reason


def test_stopping_a_job(pachd: Pachd) -> None:
    """§12: KILLED with the reason given; again is no error."""
    pipeline = pachd.pipeline("p", SLEEP, {"data": "/1"})
    job = pachd.running(pipeline).job
    pachd.client.pps.stop_job(job=job, reason="enough")
    ended = pachd.ended(pipeline, job.id)
    assert ended.state == pps.JobState.JOB_KILLED
    assert "enough" in ended.reason
    assert is_set(ended.finished)
    pachd.client.pps.stop_job(job=job)
    assert pachd.client.pfs.wait_commit(pachd.commit("p", job.id)).error


def test_a_wait_ends_with_the_job(pachd: Pachd) -> None:
    """§20.2, 9: for KILLED, too."""
    pipeline = pachd.pipeline("p", SLEEP, {"data": "/1"})
    job = pachd.running(pipeline).job
    client = pachd.another_client()
    thread, results = in_thread(lambda: client.pps.inspect_job(job=job, wait=True))
    pachd.client.pps.stop_job(job=job)
    thread.join(120)
    assert [found.state for found in results] == [pps.JobState.JOB_KILLED]  # type: ignore[attr-defined]


def test_deleting_a_job(pachd: Pachd) -> None:
    """§14: the record goes, the output stays (§12)."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"})
    job = pachd.succeeded(pipeline).job
    pachd.client.pps.delete_job(job=job)
    assert not pachd.client.pps.job_exists(job)
    assert pachd.jobs(pipeline) == []
    assert set(pachd.files(pachd.commit("p"))) == {"/1", "/2"}


def test_a_job_that_is_not(pachd: Pachd) -> None:
    """§14: NOT_FOUND to inspect and to stop; to list, of a missing pipeline."""
    pipeline = pachd.pipeline("p", "true", {"data": "/1"})
    for missing in (
        pps.Job(pipeline=pipeline, id=NO_ID),
        pps.Job(pipeline=pps.Pipeline(name="none"), id=NO_ID),
    ):
        with refused(NOT_FOUND):
            pachd.client.pps.inspect_job(job=missing)
        with refused(NOT_FOUND):
            pachd.client.pps.stop_job(job=missing)
    with refused(NOT_FOUND):
        list(pachd.client.pps.list_job(pipeline=pps.Pipeline(name="none", project=pachd.project)))


def test_lists_of_jobs(pachd: Pachd) -> None:
    """§14: newest first, of the current version unless history is asked for."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"})
    first = pachd.succeeded(pipeline).job
    second = pachd.put("data", {"/3": b""})
    pachd.succeeded(pipeline, second.id)
    assert [job.job.id for job in pachd.client.pps.list_job(pipeline=pipeline)] == [second.id, first.id]
    assert not next(iter(pachd.client.pps.list_job(pipeline=pipeline))).is_set("details")
    pachd.pipeline("p", COPY, {"data": "/*"}, update=True)
    assert len(list(pachd.client.pps.list_job(pipeline=pipeline))) == 1
    assert len(list(pachd.client.pps.list_job(pipeline=pipeline, history=-1))) == 3
    assert len(list(pachd.client.pps.list_job(projects=[pachd.project], history=-1))) == 3


def test_jobs_of_a_commit(pachd: Pachd) -> None:
    """§14: those of sets with a commit that was made from that very commit."""
    first = pachd.pipeline("p", COPY, {"data": "/*"})
    second = pachd.pipeline("q", "true", {"p": "/*"})
    pachd.succeeded(first)
    pachd.succeeded(second)
    commit = pachd.put("data", {"/3": b""})
    found = pachd.client.pps.list_job(projects=[pachd.project], input_commit=[commit])
    assert {(job.job.pipeline.name, job.job.id) for job in found} == {("p", commit.id), ("q", commit.id)}


def test_job_sets(pachd: Pachd) -> None:
    """§14: ListJobSet, newest first."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"})
    first = pachd.succeeded(pipeline).job
    second = pachd.put("data", {"/3": b""})
    infos = list(pachd.client.pps.list_job_set(projects=[pachd.project]))
    assert [info.job_set.id for info in infos] == [second.id, first.id]
    assert [job.job.pipeline.name for job in infos[0].jobs] == ["p"]


def test_a_subscription_sends_a_job_that_waits(pachd: Pachd) -> None:
    """§14: SubscribeJob begins with the jobs that have not ended."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"})
    pachd.succeeded(pipeline)
    stream = pachd.client.pps.subscribe_job(pipeline=pipeline)
    commit = pachd.start("data")
    assert next(iter(stream)).job.id == commit.id
    pachd.client.pfs.finish_commit(commit=commit)


def test_a_job_over_its_time(pachd: Pachd) -> None:
    """§12: KILLED, the reason literally ` jobtimed out`."""
    pipeline = pachd.pipeline("p", SLEEP, {"data": "/1"}, job_timeout=timedelta(seconds=1))
    job = pachd.ended(pipeline)
    assert (job.state, job.reason) == (pps.JobState.JOB_KILLED, " jobtimed out")


def test_dropping_the_set_of_a_running_job(pachd: Pachd) -> None:
    """§5.4: the job is stopped, `output commit removed`; the next one runs."""
    pipeline = pachd.pipeline(
        "p", "if [ $(basename $data) = 3 ]; then sleep 600; fi; " + COPY, {"data": "/*"}
    )
    pachd.succeeded(pipeline)
    commit = pachd.put("data", {"/3": b""})
    pachd.running(pipeline)
    pachd.client.pfs.drop_commit_set(commit_set=pfs.CommitSet(id=commit.id))
    job = pachd.ended(pipeline, commit.id)
    assert (job.state, job.reason) == (pps.JobState.JOB_KILLED, "output commit removed")
    pachd.succeeded(pipeline, pachd.put("data", {"/4": b""}).id)


def test_calls_name_their_job(pachd: Pachd) -> None:
    """§14: `must specify a job`, `must specify a datum`, with the status of any error (§3)."""
    with refused(UNKNOWN, "must specify a job"):
        pachd.client.pps.inspect_job()
    with refused(UNKNOWN, "must specify a datum"):
        pachd.client.pps.inspect_datum()


def test_a_pipeline_without_cron_inputs_has_no_ticks(pachd: Pachd) -> None:
    """§14: RunCron, `pipeline doesn't have a cron input`."""
    pipeline = pachd.pipeline("p", "true", {"data": "/1"})
    with refused(UNKNOWN, "pipeline doesn't have a cron input"):
        pachd.client.pps.run_cron(pipeline=pipeline)


def test_jobs_by_jq(pachd: Pachd) -> None:
    """§14: jqFilter comes before `number`; 64-bit numbers are strings."""
    pachd.repo("a", {"/1": b""})
    pipeline = pachd.pipeline("p", "true", {"a": "/*"})
    old = pachd.succeeded(pipeline)
    pachd.put("a", {"/2": b""})
    new = pachd.succeeded(pipeline)
    one = {"pipeline": pipeline, "number": 1}
    listed = pachd.client.pps.list_job
    assert [info.job for info in listed(jq_filter='.data_total == "1"', **one)] == [old.job]
    assert [info.job for info in listed(jq_filter='.state == "JOB_SUCCESS"', **one)] == [new.job]
    sets = pachd.client.pps.list_job_set(
        projects=[pachd.project], jq_filter=f'.jobs[].job.id == "{old.job.id}"'
    )
    assert [info.job_set.id for info in sets] == [old.job.id]


def test_pages_of_jobs(pachd: Pachd) -> None:
    """§14: number, reverse and the marker, a job's time of creation, which is excluded."""
    pipeline = pachd.pipeline("p", "true", {"data": "/*"})
    pachd.put("data", {"/3": b"three"})
    pachd.put("data", {"/4": b"four"})
    newest_first = [info.job.id for info in pachd.jobs(pipeline)]
    infos = {info.job.id: info for info in pachd.jobs(pipeline)}
    assert len(newest_first) == 3

    def listed(**more: Any) -> list[str]:
        return [info.job.id for info in pachd.client.pps.list_job(pipeline=pipeline, **more)]

    assert listed(number=2) == newest_first[:2]
    assert listed(reverse=True, number=2) == newest_first[::-1][:2]
    middle = infos[newest_first[1]].created
    assert listed(pagination_marker=middle) == newest_first[2:]
    assert listed(pagination_marker=middle, reverse=True) == newest_first[:1]
    for info in infos.values():
        pachd.ended(pipeline, info.job.id)


def test_jobs_of_projects(pachd: Pachd) -> None:
    """§14: ListJob and ListJobSet of some projects."""
    pachd.succeeded(pachd.pipeline("p", "true", {"data": "/*"}))
    other = pachd.new_project()
    assert {info.job.pipeline.name for info in pachd.client.pps.list_job(projects=[pachd.project])} == {"p"}
    assert list(pachd.client.pps.list_job(projects=[other])) == []
    assert list(pachd.client.pps.list_job_set(projects=[other])) == []


def test_a_subscription_sends_new_jobs(pachd: Pachd) -> None:
    """§14: SubscribeJob sends each job once, when it becomes known."""
    pipeline = pachd.pipeline("p", "true", {"data": "/*"})
    pachd.succeeded(pipeline)
    stream = pachd.another_client().pps.subscribe_job(pipeline=pipeline, details=True)
    thread, results = in_thread(lambda: next(iter(stream)))
    commit = pachd.put("data", {"/3": b"three"})
    while thread.is_alive():  # made before it was listened for, the job may have ended
        thread.join(0.2)
        if thread.is_alive():
            commit = pachd.put("data", {"/3": commit.id.encode()})
    (info,) = results
    assert isinstance(info, pps.JobInfo)
    assert info.job.pipeline.name == "p"
    assert info.is_set("details")
