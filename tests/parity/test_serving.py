"""Services and spouts: their jobs and repos. What is behind a port is where the server is: not held here."""

from __future__ import annotations

from typing import Any

import pytest
from pachyderm_sdk.api import pfs, pps

from tests.parity.pachd import UNKNOWN, Pachd, eventually, refused

pytestmark = pytest.mark.workers("waits for jobs")

SERVICE = pps.Service(internal_port=8000, external_port=31800)
# The SDK sends nothing at all for a Spout without anything in it.
SPOUT = pps.Spout(service=pps.Service())


def spout(pachd: Pachd, **more: Any) -> pps.Pipeline:
    pipeline = pps.Pipeline(name="p", project=pachd.project)
    transform = pps.Transform(image=pachd.image, cmd=["sh", "-c", "sleep 600"])
    pachd.client.pps.create_pipeline(pipeline=pipeline, transform=transform, spout=SPOUT, **more)
    return pipeline


def test_a_service_lasts_until_the_next_one(pachd: Pachd) -> None:
    """§16: RUNNING while it serves, SUCCESS when a newer job takes its place; no datum is counted, no meta
    repo (§10.2).
    """
    pachd.repo("a", {"/1": b""})
    pipeline = pachd.pipeline("p", "sleep 600", {"a": "/"}, service=SERVICE)
    first = pachd.running(pipeline)
    pachd.put("a", {"/2": b""})
    ended = pachd.succeeded(pipeline, first.job.id)
    assert (ended.job, ended.data_total, ended.data_processed) == (first.job, 0, 0)
    second = pachd.running(pipeline)
    assert second.job != first.job
    assert not pachd.client.pfs.repo_exists(pachd.named("p", "meta"))
    info = pachd.client.pps.inspect_pipeline(pipeline=pipeline, details=True)
    assert info.type == pps.PipelineInfoPipelineType.PIPELINE_TYPE_SERVICE
    assert info.details.service.internal_port == 8000
    assert info.details.service.ip
    pachd.client.pps.stop_job(job=second.job)
    assert pachd.ended(pipeline, second.job.id).state == pps.JobState.JOB_KILLED


def test_a_service_whose_command_has_ended(pachd: Pachd) -> None:
    """§16: its job is RUNNING all the same."""
    pachd.repo("a", {"/1": b""})
    pipeline = pachd.pipeline("p", "echo over", {"a": "/"}, service=SERVICE)
    job = pachd.running(pipeline).job
    eventually(lambda: "over" in list(pachd.said(pipeline=pipeline, job=job)), "the command ends")
    assert pachd.running(pipeline).job == job


def test_a_spout_has_no_jobs(pachd: Pachd) -> None:
    """§16 and §6: its branch depends on its spec alone, and has a head; no meta repo (§10.2)."""
    pipeline = spout(pachd)
    info = pachd.client.pps.inspect_pipeline(pipeline=pipeline, details=True)
    assert info.type == pps.PipelineInfoPipelineType.PIPELINE_TYPE_SPOUT
    branch = pachd.client.pfs.inspect_branch(branch=pachd.branch("p"))
    assert [(one.repo.name, one.repo.type) for one in branch.direct_provenance] == [("p", "spec")]
    assert pachd.jobs(pipeline) == []
    assert not pachd.client.pfs.repo_exists(pachd.named("p", "meta"))
    pachd.client.pps.stop_pipeline(pipeline=pipeline)
    pachd.client.pps.start_pipeline(pipeline=pipeline)
    pachd.client.pps.rerun_pipeline(pipeline=pipeline)
    assert pachd.jobs(pipeline) == []


def test_commits_on_the_branch_of_a_spout(pachd: Pachd) -> None:
    """§5.4: StartCommit is for spouts, whose output makes jobs downstream."""
    spout(pachd)
    after = pachd.pipeline("q", 'cp "$p" $OUT/', {"p": "/*"})
    pachd.succeeded(after)
    commit = pachd.put("p", {"/1": b"one"})
    assert pachd.succeeded(after, commit.id).data_processed == 1


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"parallelism_spec": pps.ParallelismSpec(constant=2)}, "constant parallelism of 1"),
        ({"service": pps.Service(internal_port=80, external_port=31800, type="Nothing")}, "service type"),
    ],
)
def test_what_is_no_service(pachd: Pachd, more: dict[str, Any], text: str) -> None:
    """§10.2: validation texts."""
    pachd.repo("a")
    with refused(UNKNOWN, text):
        pachd.pipeline("p", "true", {"a": "/"}, **{"service": SERVICE, **more})


def test_what_is_no_spout(pachd: Pachd) -> None:
    """§10.2: validation texts."""
    pachd.repo("a")
    with refused(UNKNOWN, "must not have an input"):
        spout(pachd, input=pachd.input("a", "/"))
    with refused(UNKNOWN, "autoscaling can't be used with spouts"):
        spout(pachd, autoscaling=True)
    assert not pachd.client.pfs.repo_exists(pfs.Repo(name="p", type="user", project=pachd.project))
