"""Jobs and trials as a user sees them: states, durations, references. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from kaos_backend.domain.models import Datum, DatumState, Job, JobState
from kaos_backend.errors import Ambiguous, NoSuchJob

TrialState = Literal["waiting", "running", "success", "skipped", "failed", "killed", "unrunnable"]

MAX_CANDIDATES = 10


def trial_state(datum: Datum | None, job: Job, running: bool) -> TrialState:
    """The state of one trial from its datum (None: not listed yet) and the job that it belongs to.

    ``unrunnable``: its job ended before it was run, for another reason than being killed.
    """
    if datum is None or datum.state in (DatumState.UNKNOWN, DatumState.STARTING):
        if job.state.terminal:
            return "killed" if job.state is JobState.KILLED else "unrunnable"
        return "running" if running or (datum and datum.state is DatumState.STARTING) else "waiting"
    if datum.state in (DatumState.FAILED, DatumState.RECOVERED):
        return "failed"
    return "skipped" if datum.state is DatumState.SKIPPED else "success"


def duration_s(created: datetime | None, finished: datetime | None, now: datetime) -> float | None:
    """Seconds from ``created`` to ``finished`` (or ``now`` while it runs); None if it never began."""
    if created is None:
        return None
    return max(0.0, ((finished or now) - created).total_seconds())


def span(jobs: Sequence[Job]) -> tuple[datetime | None, datetime | None, datetime | None]:
    """(created, started, finished) of several jobs together; finished only when all have ended."""
    created = min((j.created for j in jobs if j.created), default=None)
    started = min((j.started for j in jobs if j.started and j.state is not JobState.CREATED), default=None)
    done = all(j.state.terminal for j in jobs)
    finished = max((j.finished for j in jobs if j.finished), default=None) if done else None
    return created, started, finished


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
