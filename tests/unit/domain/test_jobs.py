from __future__ import annotations

from datetime import UTC, datetime, timedelta

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


def datum(state: DatumState) -> Datum:
    return Datum("d", "j", state, (), None)


@pytest.mark.parametrize(
    ("state", "running", "ended"),
    [
        (None, "waiting", "killed"),
        (DatumState.UNKNOWN, "waiting", "killed"),
        (DatumState.STARTING, "running", "killed"),
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


def test_a_trial_of_a_job_that_ended_before_it_was_not_run() -> None:
    assert jobs.trial_state(None, job("failure"), False) == "unrunnable"
    assert jobs.trial_state(None, job("unrunnable"), False) == "unrunnable"


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
