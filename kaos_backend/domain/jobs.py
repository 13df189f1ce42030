"""What a deploy's build and train jobs together mean to a user. Pure functions of Pachyderm's job states."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from kaos_backend.domain.models import Datum, DatumState, Job, JobState
from kaos_backend.errors import Ambiguous, NoSuchJob

State = Literal["building", "training", "queued", "success", "partial", "failed", "killed"]
TrialState = Literal["waiting", "running", "success", "skipped", "failed"]

ACTIVE: frozenset[str] = frozenset({"building", "training", "queued"})
MAX_CANDIDATES = 10

_RUNNING = frozenset({JobState.RUNNING, JobState.FINISHING, JobState.EGRESSING})


@dataclass(frozen=True, slots=True)
class Outcome:
    """The folded state of a deploy, and why where there is a why."""

    state: State
    reason: str

    @property
    def active(self) -> bool:
        return self.state in ACTIVE


def failed_trials(job: Job) -> int:
    """Trials without a model: ``err_cmd`` turns failed datums into recovered ones, so both count."""
    return job.failed + job.recovered


def fold(build: Job | None, train: Job | None) -> Outcome:
    """The state of a deploy from its build and train jobs (each may be absent, not both)."""
    if build is not None:
        if not build.state.terminal:
            return Outcome("building" if build.state in _RUNNING else "queued", build.reason)
        if build.state is JobState.KILLED:
            return Outcome("killed", build.reason)
        if build.state is not JobState.SUCCESS:
            return Outcome("failed", f"the build failed: {build.reason}".removesuffix(": "))
        if train is None and failed_trials(build):
            return Outcome("failed", "the build failed")
    if train is None:
        return Outcome("success", "")
    return _fold_train(train)


def _fold_train(train: Job) -> Outcome:
    failed = failed_trials(train)
    if not train.state.terminal:
        return Outcome("training" if train.state in _RUNNING else "queued", train.reason)
    if train.state is JobState.SUCCESS:
        if not failed:
            return Outcome("success", "")
        if train.processed + train.skipped == 0:
            return Outcome("failed", f"all {failed} trials failed" if failed > 1 else "the only trial failed")
        return Outcome("partial", f"{failed} of {train.total} trials failed")
    return Outcome("killed" if train.state is JobState.KILLED else "failed", train.reason)


def trial_state(datum: Datum | None, job: Job, running: bool) -> TrialState:
    """The state of one trial from its datum (None: not listed yet) and the train job it belongs to."""
    if datum is None or datum.state in (DatumState.UNKNOWN, DatumState.STARTING):
        if job.state.terminal:
            return "failed"
        return "running" if running or (datum and datum.state is DatumState.STARTING) else "waiting"
    if datum.state in (DatumState.FAILED, DatumState.RECOVERED):
        return "failed"
    return "skipped" if datum.state is DatumState.SKIPPED else "success"


def duration_s(created: datetime | None, finished: datetime | None, now: datetime) -> float | None:
    """Seconds from ``created`` to ``finished`` (or ``now`` while it runs); None if it never began."""
    if created is None:
        return None
    return max(0.0, ((finished or now) - created).total_seconds())


def resolve(ref: str, ids: list[str]) -> str:
    """The job id that ``ref`` (a full id, a unique prefix or ``last``) names among ``ids``, newest first.

    Raises NoSuchJob or Ambiguous.
    """
    if ref == "last":
        if not ids:
            raise NoSuchJob("there are no jobs yet", hint="start one with `kaos train deploy`")
        return ids[0]
    matches = [i for i in ids if i.startswith(ref)] if ref else []
    if ref in matches:
        return ref
    if not matches:
        raise NoSuchJob(f"no job {ref!r}", hint="`kaos train list` shows the jobs of this workspace", job=ref)
    if len(matches) > 1:
        raise Ambiguous(
            f"{ref!r} names {len(matches)} jobs",
            hint="type more digits of the id",
            candidates=matches[:MAX_CANDIDATES],
        )
    return matches[0]
