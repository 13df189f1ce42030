from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from kaos_backend.domain import jobs
from kaos_backend.domain.models import Datum, DatumState, Job, JobState
from kaos_backend.errors import Ambiguous, NoSuchJob

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def job(state: str, pipeline: str = "train", **counts: int) -> Job:
    numbers = {"total": 0, "processed": 0, "skipped": 0, "failed": 0, "recovered": 0} | counts
    return Job(
        "p", pipeline, "f" * 32, JobState(state), "why", created=NOW, started=None, finished=None, **numbers
    )


@pytest.mark.parametrize(
    ("build", "train", "state"),
    [
        ("created", None, "queued"),
        ("starting", "created", "queued"),
        ("running", "created", "building"),
        ("finishing", "created", "building"),
        ("success", "created", "queued"),
        ("success", "running", "training"),
        ("success", "finishing", "training"),
        ("success", "success", "success"),
        ("success", None, "success"),
        ("failure", "unrunnable", "failed"),
        ("unrunnable", "unrunnable", "failed"),
        ("killed", "unrunnable", "killed"),
        ("success", "killed", "killed"),
        ("success", "failure", "failed"),
        (None, "unrunnable", "failed"),
        (None, "running", "training"),
    ],
)
def test_folding(build: str | None, train: str | None, state: str) -> None:
    b = job(build, "build") if build else None
    t = job(train) if train else None
    assert jobs.fold(b, t).state == state


def test_failed_trials_make_it_partial_or_failed() -> None:
    some = jobs.fold(None, job("success", total=6, processed=3, skipped=1, recovered=2))
    assert (some.state, some.reason) == ("partial", "2 of 6 trials failed")
    assert jobs.fold(None, job("success", total=2, recovered=2)).reason == "all 2 trials failed"
    assert jobs.fold(None, job("success", total=1, recovered=1)).state == "failed"


def test_a_build_failure_says_so() -> None:
    assert jobs.fold(job("failure", "build"), job("unrunnable")).reason == "the build failed: why"


def test_folding_is_total_and_ends_only_when_both_did() -> None:
    for build, train in product(JobState, JobState):
        outcome = jobs.fold(job(build, "build"), job(train))
        if outcome.state == "success":
            assert build.terminal
            assert train.terminal


def datum(state: DatumState) -> Datum:
    return Datum("d", "j", state, (), None)


@pytest.mark.parametrize(
    ("state", "running", "ended"),
    [
        (None, "waiting", "failed"),
        (DatumState.UNKNOWN, "waiting", "failed"),
        (DatumState.STARTING, "running", "failed"),
        (DatumState.SUCCESS, "success", "success"),
        (DatumState.SKIPPED, "skipped", "skipped"),
        (DatumState.FAILED, "failed", "failed"),
        (DatumState.RECOVERED, "failed", "failed"),
    ],
)
def test_trial_states(state: DatumState | None, running: str, ended: str) -> None:
    found = datum(state) if state else None
    assert jobs.trial_state(found, job("running"), False) == running
    assert jobs.trial_state(found, job("killed"), True) == ended


def test_a_trial_at_a_worker_is_running() -> None:
    assert jobs.trial_state(None, job("running"), True) == "running"


def test_durations() -> None:
    assert jobs.duration_s(None, None, NOW) is None
    assert jobs.duration_s(NOW - timedelta(seconds=3), None, NOW) == 3
    assert jobs.duration_s(NOW, NOW - timedelta(seconds=3), NOW) == 0


def test_resolving_references() -> None:
    ids = ["abc1", "abd2", "e3"]
    assert jobs.resolve("last", ids) == "abc1"
    assert jobs.resolve("e", ids) == "e3"
    assert jobs.resolve("abc1", ids) == "abc1"
    with pytest.raises(Ambiguous) as caught:
        jobs.resolve("ab", ids)
    assert caught.value.fields["candidates"] == ["abc1", "abd2"]
    for ref, known in (("f", ids), ("", ids), ("last", [])):
        with pytest.raises(NoSuchJob):
            jobs.resolve(ref, known)
