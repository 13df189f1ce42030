from __future__ import annotations

from datetime import UTC, datetime
from itertools import product

import pytest

from kaos_backend.domain import stages
from kaos_backend.domain.models import Job, JobState
from kaos_backend.domain.stages import Outcome, Stage, Whole

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FETCH = Stage("fetch", "fetching", ("urls",), (), lambda _: {})
BUILD = Stage("build", "building", ("source",), ("source",), lambda _: {}, image=True)
TRAIN = Stage("train", "training", ("fetch", "build", "hyper"), ("source",), lambda _: {}, trials=True)
ALL = (FETCH, BUILD, TRAIN)


def job(state: str, pipeline: str = "train", reason: str = "why", **counts: int) -> Job:
    numbers = {"total": 0, "processed": 0, "skipped": 0, "failed": 0, "recovered": 0} | counts
    return Job(
        "p", pipeline, "f" * 32, JobState(state), reason, created=NOW, started=None, finished=None, **numbers
    )


def of(build: str | None, train: str | None) -> list[tuple[Stage, Job]]:
    made = [job(build, "build")] if build else []
    return stages.with_jobs(ALL, [*([job(train)] if train else []), *made])


@pytest.mark.parametrize(
    ("build", "train", "state"),
    [
        ("created", None, "waiting"),
        ("starting", "created", "waiting"),
        ("running", "created", "running"),
        ("finishing", "created", "running"),
        ("success", "created", "waiting"),
        ("success", "running", "running"),
        ("success", "finishing", "running"),
        ("success", "success", "success"),
        ("success", None, "success"),
        ("failure", "unrunnable", "failed"),
        ("unrunnable", "unrunnable", "failed"),
        ("killed", "unrunnable", "killed"),
        ("success", "killed", "killed"),
        ("success", "failure", "failed"),
        (None, "unrunnable", "failed"),
        (None, "running", "running"),
    ],
)
def test_folding(build: str | None, train: str | None, state: str) -> None:
    assert stages.fold(of(build, train)).state == state


def test_failed_trials_make_it_partial_or_failed() -> None:
    def ended(reason: str = "", **counts: int) -> tuple[str, str]:
        jobs = [(TRAIN, job("success", reason=reason, **counts))]
        (outcome,) = stages.outcomes(jobs)
        assert stages.fold(jobs) == Whole(outcome.state, outcome.reason, outcome.code)
        return outcome.state, outcome.reason

    assert ended(total=6, processed=3, skipped=1, recovered=2) == ("partial", "2 of 6 trials failed")
    assert ended(total=6, recovered=6) == ("failed", "all 6 trials failed")
    assert ended(total=1, recovered=1) == ("failed", "the only trial failed")
    assert ended(total=1, skipped=1) == ("success", "")
    why = "out of memory: used 5 MiB of 4 MiB"
    assert ended(why, total=2, recovered=1, processed=1) == ("partial", f"1 of 2 trials failed: {why}")


@pytest.mark.parametrize(
    ("stage", "reason", "told", "code"),
    [
        (TRAIN, "datum ab12 failed: out of memory: used 5 MiB", "out of memory: used 5 MiB", "out_of_memory"),
        (TRAIN, "datum ab12 failed", "failed", "failed"),
        # A program's own words stay as they are.
        (TRAIN, "datum ab12 failed: exit code 1: a datum", "exit code 1: a datum", "exit_code"),
        (BUILD, "datum ab12 failed: exit code 1: Dockerfile:3: bad", "Dockerfile:3: bad", "build_failed"),
        (BUILD, "datum ab12 failed: timed out after 3 s", "timed out after 3 s", "build_failed"),
    ],
)
def test_a_failed_job_tells_what_its_datum_ended_with(
    stage: Stage, reason: str, told: str, code: str
) -> None:
    (outcome,) = stages.outcomes([(stage, job("failure", reason=reason))])
    assert (outcome.state, outcome.reason, outcome.code) == ("failed", told, code)


def test_a_stage_that_failed_says_so_and_what_needs_it_is_unrunnable() -> None:
    jobs = of("failure", "unrunnable")
    assert stages.fold(jobs) == Whole("failed", "the build failed: why", "build_failed")
    assert stages.outcomes(jobs) == [
        Outcome("failed", "why", "build_failed"),
        Outcome("unrunnable", "the build failed", "unrunnable"),
    ]
    killed = stages.outcomes(of("killed", "unrunnable"))
    assert killed[1] == Outcome("unrunnable", "the build was killed", "unrunnable")
    assert stages.fold([(BUILD, job("success", "build", recovered=1))]).state == "failed"


def test_a_stage_waits_for_the_one_before_it_or_for_what_its_job_says() -> None:
    silent = job("created", reason="")
    jobs = [(BUILD, job("running", "build", reason="")), (TRAIN, silent)]
    assert stages.outcomes(jobs) == [Outcome("running"), Outcome("waiting", "waits for the build")]
    jobs[1] = (TRAIN, job("created", reason="waits for job 1a2b3c4d"))
    assert stages.outcomes(jobs)[1].reason == "waits for job 1a2b3c4d"
    assert stages.fold(of("success", "starting")) == Whole("waiting", "why")


def test_folding_is_total_and_ends_only_when_all_did() -> None:
    for build, train in product(JobState, JobState):
        if stages.fold(of(build, train)).state == "success":
            assert build.terminal
            assert train.terminal


def test_stages_run_when_all_they_read_is_there() -> None:
    def runnable(**deployed: str | None) -> list[str]:
        return [stage.name for stage in stages.runnable(ALL, deployed)]

    assert runnable() == []
    assert runnable(urls="u") == ["fetch"]
    assert runnable(urls=None, source="s", hyper="h") == ["build"]
    assert runnable(urls="u", source="s", hyper="h") == ["fetch", "build", "train"]


def test_a_fetch_and_a_build_go_on_beside_each_other() -> None:
    def told(fetch: str, build: str, train: str) -> tuple[Whole, list[str]]:
        jobs = [
            (stage, job(state, stage.name, reason="why" if state == "failure" else ""))
            for stage, state in zip(ALL, (fetch, build, train), strict=True)
        ]
        return stages.fold(jobs), [outcome.reason for outcome in stages.outcomes(jobs)]

    assert told("created", "running", "created") == (Whole("running"), ["", "", "waits for the fetch"])
    assert told("success", "created", "created")[1] == ["", "", "waits for the build"]
    # What failed is told when the other one has ended.
    whole, reasons = told("failure", "running", "unrunnable")
    assert (whole, reasons) == (Whole("running"), ["why", "", "the fetch failed"])
    assert told("failure", "success", "unrunnable")[0] == Whole(
        "failed", "the fetch failed: why", "fetch_failed"
    )
    assert told("running", "failure", "unrunnable")[1][2] == "the build failed"
