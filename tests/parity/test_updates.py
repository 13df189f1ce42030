"""Pipelines that are updated or run again: what is done anew, and what is skipped."""

from __future__ import annotations

import pytest
from pachyderm_sdk.api import pps

from tests.parity.pachd import COPY, SLEEP, Pachd

pytestmark = pytest.mark.workers("waits for jobs")


@pytest.fixture(autouse=True)
def data(pachd: Pachd) -> None:
    pachd.repo("data", {"/1": b"one", "/2": b"two"})


def test_an_update_skips_what_is_done(pachd: Pachd) -> None:
    """§10.4: new code is not applied to old data."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"})
    pachd.succeeded(pipeline)
    pachd.pipeline("p", COPY + ".new", {"data": "/*"}, update=True)
    job = pachd.succeeded(pipeline)
    assert (job.pipeline_version, job.data_processed, job.data_skipped) == (2, 0, 2)
    assert set(pachd.files(pachd.commit("p"))) == {"/1", "/2"}


def test_reprocess_runs_all_again(pachd: Pachd) -> None:
    """§10.4: with a new salt; what the old code wrote goes."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"})
    pachd.succeeded(pipeline)
    pachd.pipeline("p", COPY + ".new", {"data": "/*"}, update=True, reprocess=True)
    job = pachd.succeeded(pipeline)
    assert (job.data_processed, job.data_skipped) == (2, 0)
    assert set(pachd.files(pachd.commit("p"))) == {"/1.new", "/2.new"}


def test_another_glob_runs_what_it_adds(pachd: Pachd) -> None:
    """§10.4: a path is a datum's identity; what the glob leaves out is removed from the output."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/1"})
    pachd.succeeded(pipeline)
    pachd.pipeline("p", COPY, {"data": "/*"}, update=True)
    job = pachd.succeeded(pipeline)
    assert (job.data_processed, job.data_skipped) == (1, 1)
    pachd.pipeline("p", COPY, {"data": "/2"}, update=True)
    pachd.succeeded(pipeline)
    assert set(pachd.files(pachd.commit("p"))) == {"/2"}


def test_every_job_skips_nothing(pachd: Pachd) -> None:
    """§10.3: reprocess_spec `every_job`."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"}, reprocess_spec="every_job")
    pachd.succeeded(pipeline)
    pachd.client.pps.rerun_pipeline(pipeline=pipeline)
    assert pachd.succeeded(pipeline).data_processed == 2


@pytest.mark.parametrize("reprocess", [False, True])
def test_a_rerun_is_a_version_and_a_job(pachd: Pachd, reprocess: bool) -> None:
    """§10.4: RerunPipeline with the stored spec."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"})
    pachd.succeeded(pipeline)
    pachd.client.pps.rerun_pipeline(pipeline=pipeline, reprocess=reprocess)
    job = pachd.succeeded(pipeline)
    assert job.pipeline_version == 2
    assert (job.data_processed, job.data_skipped) == ((2, 0) if reprocess else (0, 2))


def test_an_update_kills_what_runs(pachd: Pachd) -> None:
    """§10.2: the unfinished job ends as KILLED with a reason."""
    pipeline = pachd.pipeline("p", SLEEP, {"data": "/1"})
    first = pachd.running(pipeline).job
    pachd.pipeline("p", COPY, {"data": "/1"}, update=True)
    job = pachd.ended(pipeline, first.id)
    assert job.state == pps.JobState.JOB_KILLED
    assert "pipeline was updated" in job.reason
    assert pachd.succeeded(pipeline).data_processed == 1
