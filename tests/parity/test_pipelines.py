"""Pipelines: making, stopping, listing, deleting."""

from __future__ import annotations

import grpc
import pytest
from pachyderm_sdk.api import metadata, pfs, pps

from tests.parity.pachd import COPY, EXISTS, INVALID, NOT_FOUND, SLEEP, UNKNOWN, Pachd, eventually, refused

pytestmark = pytest.mark.workers("waits for jobs")

KILLED = pps.JobState.JOB_KILLED
PAUSED = pps.PipelineState.PIPELINE_PAUSED


@pytest.fixture(autouse=True)
def data(pachd: Pachd) -> None:
    pachd.repo("data", {"/1": b"one", "/2": b"two"})


def repos(pachd: Pachd) -> set[tuple[str, str]]:
    infos = pachd.client.pfs.list_repo(projects=[pachd.project])
    return {(info.repo.name, info.repo.type) for info in infos}


def test_a_pipeline_runs_at_once_on_what_is_there(pachd: Pachd) -> None:
    """§10.2: a job is made from the existing heads; its output is the head of the output branch."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"})
    job = pachd.succeeded(pipeline)
    assert pachd.files(pachd.commit("p")) == {"/1": b"one", "/2": b"two"}
    assert pachd.head(pachd.branch("p")).id == job.job.id


def test_a_pipeline_on_nothing_has_a_job_without_datums(pachd: Pachd) -> None:
    """§10.2: even on empty commits; the missing branch of the input is made."""
    pachd.repo("empty")
    job = pachd.succeeded(pachd.pipeline("p", "true", {"empty": "/*"}))
    assert (job.data_total, job.data_processed) == (0, 0)
    assert pachd.files(pachd.commit("p")) == {}


def test_a_pipeline_has_three_repos(pachd: Pachd) -> None:
    """§10.2: user, spec and meta; the spec repo has an empty commit a version (§11.5)."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"})
    assert {("p", "user"), ("p", "spec"), ("p", "meta")} <= repos(pachd)
    pachd.pipeline("p", COPY, {"data": "/*"}, update=True)
    assert len(list(pachd.client.pfs.list_commit(repo=pachd.named("p", "spec"), all=True))) == 2
    assert pachd.client.pps.inspect_pipeline(pipeline=pipeline).version == 2


def test_the_output_branch_depends_on_inputs_and_spec(pachd: Pachd) -> None:
    """§10.2: provenance of the output branch."""
    pachd.repo("hyper")
    pachd.pipeline("p", "true", {"data": "/*", "hyper": "/*"})
    info = pachd.client.pfs.inspect_branch(branch=pachd.branch("p"))
    assert {(b.repo.name, b.repo.type) for b in info.direct_provenance} == {
        ("data", "user"),
        ("hyper", "user"),
        ("p", "spec"),
    }


def test_a_pipeline_is_made_once(pachd: Pachd) -> None:
    """§10.2: ALREADY_EXISTS without update; update makes what is missing."""
    pachd.pipeline("p", "true", {"data": "/*"}, update=True)
    with refused(EXISTS, "already exists"):
        pachd.pipeline("p", "true", {"data": "/*"})


def test_an_input_needs_its_repo(pachd: Pachd) -> None:
    """§10.2: NOT_FOUND; nothing is left."""
    with refused(NOT_FOUND):
        pachd.pipeline("p", "true", {"none": "/*"})
    assert repos(pachd) == {("data", "user")}


def test_without_a_command_the_pipeline_fails(pachd: Pachd) -> None:
    """§10.3: FAILURE, `nothing to run: no transform.cmd`."""
    pipeline = pps.Pipeline(name="p", project=pachd.project)
    pachd.client.pps.create_pipeline(
        pipeline=pipeline, transform=pps.Transform(image=pachd.image), input=pachd.input("data", "/*")
    )

    def failed() -> str:
        info = pachd.client.pps.inspect_pipeline(pipeline=pipeline)
        return str(info.reason) if info.state == pps.PipelineState.PIPELINE_FAILURE else ""

    assert "nothing to run: no transform.cmd" in eventually(failed, "the pipeline fails")


def test_an_image_that_is_not_there(pachd: Pachd) -> None:
    """§10.5: CRASHING with a reason; the job waits, it does not fail; an update helps."""
    name = "kaos/none:1"
    pipeline = pps.Pipeline(name="p", project=pachd.project)
    pachd.client.pps.create_pipeline(
        pipeline=pipeline,
        transform=pps.Transform(image=name, cmd=["true"]),
        input=pachd.input("data", "/*"),
    )

    def reason() -> str:
        info = pachd.client.pps.inspect_pipeline(pipeline=pipeline)
        return str(info.reason) if info.state == pps.PipelineState.PIPELINE_CRASHING else ""

    assert name in eventually(reason, "the pipeline crashes")
    assert pachd.jobs(pipeline)[0].state in (pps.JobState.JOB_CREATED, pps.JobState.JOB_STARTING)
    pachd.pipeline("p", "true", {"data": "/*"}, update=True)
    pachd.succeeded(pipeline)


def test_pipelines_of_a_project(pachd: Pachd) -> None:
    """§14: ListPipeline, details always filled."""
    for name in ("p", "q"):
        pachd.pipeline(name, "true", {"data": "/1"})
    infos = list(pachd.client.pps.list_pipeline(projects=[pachd.project]))
    assert {info.pipeline.name for info in infos} == {"p", "q"}
    assert all(info.details.datum_tries == 1 for info in infos)


def test_stopping_kills_and_starts_nothing_more(pachd: Pachd) -> None:
    """§10.5: StopPipeline; new input makes no output meanwhile."""
    pipeline = pachd.pipeline("p", SLEEP, {"data": "/*"})
    job = pachd.running(pipeline)
    pachd.client.pps.stop_pipeline(pipeline=pipeline)
    killed = pachd.ended(pipeline, job.job.id)
    assert killed.state == KILLED
    assert "pipeline was stopped" in killed.reason
    assert pachd.client.pps.inspect_pipeline(pipeline=pipeline).stopped
    eventually(
        lambda: pachd.client.pps.inspect_pipeline(pipeline=pipeline).state == PAUSED, "the pipeline pauses"
    )
    pachd.put("data", {"/3": b"three"})
    assert len(pachd.jobs(pipeline)) == 1


def test_starting_runs_on_the_heads_of_now(pachd: Pachd) -> None:
    """§10.5: StartPipeline makes one commit and job."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"})
    pachd.succeeded(pipeline)
    pachd.client.pps.stop_pipeline(pipeline=pipeline)
    pachd.put("data", {"/3": b"three"})
    pachd.put("data", {"/4": b"four"})
    pachd.client.pps.start_pipeline(pipeline=pipeline)
    assert len(pachd.jobs(pipeline)) == 2
    pachd.succeeded(pipeline)
    assert set(pachd.files(pachd.commit("p"))) == {"/1", "/2", "/3", "/4"}


def test_deleting_takes_the_repos(pachd: Pachd) -> None:
    """§14: DeletePipeline."""
    pipeline = pachd.pipeline("p", "true", {"data": "/*"})
    pachd.client.pps.delete_pipeline(pipeline=pipeline)
    assert not pachd.client.pps.pipeline_exists(pipeline)
    assert repos(pachd) == {("data", "user")}


def test_deleting_may_keep_the_output(pachd: Pachd) -> None:
    """§14: keep_repo leaves a plain repo."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"})
    pachd.succeeded(pipeline)
    pachd.client.pps.delete_pipeline(pipeline=pipeline, keep_repo=True)
    assert set(pachd.files(pachd.commit("p"))) == {"/1", "/2"}
    assert set(pachd.files(pachd.put("p", {"/3": b"3"}))) == {"/1", "/2", "/3"}


def test_a_pipeline_that_others_depend_on(pachd: Pachd) -> None:
    """§14: deleted by force only."""
    pipeline = pachd.pipeline("p", "true", {"data": "/*"})
    pachd.pipeline("q", "true", {"p": "/*"})
    with refused(UNKNOWN, "provenance"):
        pachd.client.pps.delete_pipeline(pipeline=pipeline)
    pachd.client.pps.delete_pipeline(pipeline=pipeline, force=True)
    assert not pachd.client.pps.pipeline_exists(pipeline)


def test_deleting_what_is_missing(pachd: Pachd) -> None:
    """§14: OK unless must_exist; inspecting and starting are NOT_FOUND."""
    missing = pps.Pipeline(name="none", project=pachd.project)
    pachd.client.pps.delete_pipeline(pipeline=missing)
    with refused(NOT_FOUND):
        pachd.client.pps.delete_pipeline(pipeline=missing, must_exist=True)
    with refused(NOT_FOUND):
        pachd.client.pps.inspect_pipeline(pipeline=missing)
    with refused(NOT_FOUND):
        pachd.client.pps.start_pipeline(pipeline=missing)
    assert not pachd.client.pps.pipeline_exists(missing)


def test_a_request_names_its_pipeline(pachd: Pachd) -> None:
    """§3: a missing name is INVALID_ARGUMENT."""
    for call in (pachd.client.pps.inspect_pipeline, pachd.client.pps.delete_pipeline):
        with refused(INVALID, "validate"):
            call(pipeline=pps.Pipeline(project=pachd.project))


def test_the_output_repo_belongs_to_its_pipeline(pachd: Pachd) -> None:
    """§5.2 and §10.2: it is not deleted alone, takes no commits, and a plain repo is not taken over."""
    pachd.pipeline("p", "true", {"data": "/*"})
    with refused(UNKNOWN, "cannot delete a repo associated with a pipeline"):
        pachd.client.pfs.delete_repo(repo=pachd.named("p"))
    with refused(UNKNOWN, "cannot start a commit on an output branch"):
        pachd.start("p")
    with refused(EXISTS, "a repo with the same name already exists"):
        pachd.pipeline("data", "true", {"p": "/*"})


def test_open_together_with_a_pipeline(pachd: Pachd) -> None:
    """§9.1, recipe A: inputs and pipeline in one transaction are one set and one job."""
    pachd.repo("hyper")
    with pachd.client.transaction.transaction() as txn:
        commits = [pachd.start("data"), pachd.start("hyper")]
        pipeline = pachd.pipeline("p", "cat $data $hyper > $OUT/both", {"data": "/1", "hyper": "/*"})
    assert [job.job.id for job in pachd.jobs(pipeline)] == [txn.id]
    assert pachd.jobs(pipeline)[0].state in (pps.JobState.JOB_CREATED, pps.JobState.JOB_STARTING)
    pachd.client.pfs.finish_commit(commit=commits[0])
    pachd.client.pfs.put_file_from_bytes(commit=commits[1], path="/h", data=b"!")
    pachd.client.pfs.finish_commit(commit=commits[1])
    pachd.succeeded(pipeline, txn.id)
    assert pachd.files(pachd.commit("p")) == {"/both": b"one!"}


def test_an_update_beside_its_inputs_is_still_one_job(pachd: Pachd) -> None:
    """§9.1: in one transaction, the update last."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"})
    pachd.succeeded(pipeline)
    with pachd.client.transaction.transaction() as txn:
        commit = pachd.start("data")
        pachd.pipeline("p", COPY, {"data": "/*"}, update=True)
    pachd.client.pfs.finish_commit(commit=commit)
    assert pachd.succeeded(pipeline, txn.id).data_skipped == 2
    assert len(pachd.jobs(pipeline)) == 2


def test_stage_then_flip_with_a_pipeline(pachd: Pachd) -> None:
    """§9.1, recipe B: moved heads are one job with the id of the transaction."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"})
    pachd.succeeded(pipeline)
    staged = pachd.put("data", {"/3": b"three"}, branch="staging")
    with pachd.client.transaction.transaction() as txn:
        pachd.client.pfs.create_branch(branch=pachd.branch("data"), head=staged)
    pachd.succeeded(pipeline, txn.id)
    assert pachd.files(pachd.commit("p")) == {"/3": b"three"}, "the staged commit began from nothing"


def test_metadata_of_a_pipeline(pachd: Pachd) -> None:
    """§17: EditMetadata shows in PipelineInfo."""
    pipeline = pachd.pipeline("p", "true", {"data": "/1"})
    picker = pps.PipelinePicker(
        name=pps.PipelinePickerPipelineName(project=pfs.ProjectPicker(name=pachd.project.name), name="p")
    )
    added = metadata.EditAddKey(key="k", value="v")
    pachd.client.metadata.edit_metadata(edits=[metadata.Edit(pipeline=picker, add_key=added)])
    assert pachd.client.pps.inspect_pipeline(pipeline=pipeline).metadata == {"k": "v"}


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ('.state != "PIPELINE_FAILURE"', {"p", "q"}),
        ('select(.pipeline.name == "p")', {"p"}),
        ('.details.description == "second"', {"q"}),
        (".details.nothing", set()),
        ("empty", set()),
        (".pipeline.name, false", {"p", "q"}),
        ("false, true", set()),
        # As much as there is of the caller's business in the server's environment.
        ("env.PATH // $ENV.PATH", set()),
    ],
)
def test_pipelines_by_jq(pachd: Pachd, program: str, found: set[str]) -> None:
    """§14: jqFilter over the JSON of each; what its first result is decides."""
    pachd.repo("a")
    pachd.pipeline("p", "true", {"a": "/*"})
    pachd.pipeline("q", "true", {"a": "/*"}, description="second")
    listed = pachd.client.pps.list_pipeline(projects=[pachd.project], jq_filter=program)
    assert {info.pipeline.name for info in listed} == found


def test_what_is_no_jq(pachd: Pachd) -> None:
    """§14: jqFilter is refused when it cannot be compiled."""
    with refused(UNKNOWN):
        list(pachd.client.pps.list_pipeline(jq_filter="select("))
    with refused(UNKNOWN):
        list(pachd.client.pps.list_job(jq_filter=".["))


def test_the_status_of_pipelines(pachd: Pachd) -> None:
    """§14: CheckStatus of a project, an answer a pipeline, with alerts where something is wrong."""
    pachd.repo("a", {"/1": b""})
    pachd.succeeded(pachd.pipeline("good", "true", {"a": "/*"}))
    pachd.ended(pachd.pipeline("bad", "false", {"a": "/*"}))
    answers = list(pachd.client.pps.check_status(project=pachd.project))
    assert {(one.pipeline.name, bool(one.alerts)) for one in answers} == {("good", False), ("bad", True)}


def test_run_pipeline(pachd: Pachd) -> None:
    """§14: always `unimplemented`."""
    with refused(grpc.StatusCode.UNIMPLEMENTED, "unimplemented"):
        pachd.client.pps.run_pipeline(pipeline=pps.Pipeline(name="p", project=pachd.project))


def test_a_pipeline_that_is_idle(pachd: Pachd) -> None:
    """§10.5: STANDBY with autoscaling, RUNNING without."""
    for name, autoscaling in (("p", True), ("q", False)):
        pachd.succeeded(pachd.pipeline(name, "true", {"data": "/1"}, autoscaling=autoscaling))

    def state(name: str) -> pps.PipelineState:
        pipeline = pps.Pipeline(name=name, project=pachd.project)
        return pachd.client.pps.inspect_pipeline(pipeline=pipeline).state

    eventually(lambda: state("p") == pps.PipelineState.PIPELINE_STANDBY, "it rests")
    assert state("q") == pps.PipelineState.PIPELINE_RUNNING
    pachd.put("data", {"/1": b"other"})
    job = pachd.succeeded(pps.Pipeline(name="p", project=pachd.project))
    assert job.data_processed == 1


def test_history_of_a_pipeline(pachd: Pachd) -> None:
    """§14: so many versions back from the newest, all of them with -1; newest first; ancestry in the name."""
    for number in (1, 2, 3):
        pipeline = pachd.pipeline("p", "true", {"data": "/1"}, description=f"v{number}", update=True)
    pachd.succeeded(pipeline)
    listed = pachd.client.pps.list_pipeline
    versions = {n: [one.version for one in listed(pipeline=pipeline, history=n)] for n in (0, 1, 5, -1)}
    assert versions == {0: [3], 1: [3, 2], 5: [3, 2, 1], -1: [3, 2, 1]}
    assert pachd.client.pps.inspect_pipeline(pipeline=pipeline, history=-1).version == 3
    old = pps.Pipeline(name="p^2", project=pachd.project)
    found = pachd.client.pps.inspect_pipeline(pipeline=old, details=True)
    assert (found.version, found.details.description) == (1, "v1")


def test_another_output_branch(pachd: Pachd) -> None:
    """§10.3: output_branch has what the jobs make; others of the repo are left alone."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"}, output_branch="made")
    job = pachd.succeeded(pipeline)
    assert pachd.head(pachd.branch("p", "made")).id == job.output_commit.id
    assert not pachd.client.pfs.branch_exists(pachd.branch("p"))
    pachd.succeeded(pachd.pipeline("p", COPY, {"data": "/*"}, output_branch="other", update=True))
    assert pachd.files(pachd.commit("p", "other")) == pachd.files(pachd.commit("p", "made"))


def test_pages_of_pipelines(pachd: Pachd) -> None:
    """§14: ListPipeline with a page, newest first."""
    for name in ("p", "q", "r"):
        pachd.pipeline(name, "true", {"data": "/none*"})

    def page(index: int) -> list[str]:
        asked = pps.PipelinePage(page_size=2, page_index=index)
        listed = pachd.client.pps.list_pipeline(projects=[pachd.project], page=asked)
        return [info.pipeline.name for info in listed]

    assert (page(0), page(1), page(2)) == (["r", "q"], ["p"], [])


def test_deleting_the_pipelines_of_a_project(pachd: Pachd) -> None:
    """§14: DeletePipelines tells which; those of others stay."""
    pachd.pipeline("p", "true", {"data": "/none*"})
    pachd.pipeline("q", "true", {"p": "/*"})
    other = pachd.new_project()
    gone = pachd.client.pps.delete_pipelines(projects=[other]).pipelines
    assert gone == []
    gone = pachd.client.pps.delete_pipelines(projects=[pachd.project]).pipelines
    assert {one.name for one in gone} == {"p", "q"}
    assert list(pachd.client.pps.list_pipeline(projects=[pachd.project])) == []
