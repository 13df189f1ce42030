"""The legal moves of pipelines, jobs and datums, as tables; everything else is refused.

`db.tables` moves nothing without asking them; `docs/jobs.md` says who makes each move. Numbers are those of
Pachyderm's protobuf enums, so that the façade needs no translation.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import TypeVar


class JobState(IntEnum):
    """`pps_v2.JobState`."""

    CREATED = 1
    STARTING = 2
    RUNNING = 3
    FAILURE = 4
    SUCCESS = 5
    KILLED = 6
    EGRESSING = 7
    FINISHING = 8
    UNRUNNABLE = 9


class DatumState(IntEnum):
    """`pps_v2.DatumState`; UNKNOWN = waiting for a worker, STARTING = on a worker."""

    UNKNOWN = 0
    FAILED = 1
    SUCCESS = 2
    SKIPPED = 3
    STARTING = 4
    RECOVERED = 5


class PipelineState(IntEnum):
    """`pps_v2.PipelineState`."""

    STARTING = 1
    RUNNING = 2
    RESTARTING = 3
    FAILURE = 4
    PAUSED = 5
    STANDBY = 6
    CRASHING = 7


TERMINAL_JOBS = frozenset({JobState.FAILURE, JobState.SUCCESS, JobState.KILLED, JobState.UNRUNNABLE})
DONE_DATUMS = frozenset({DatumState.FAILED, DatumState.SUCCESS, DatumState.SKIPPED, DatumState.RECOVERED})

_J = JobState
JOB_MOVES: Mapping[JobState, frozenset[JobState]] = {
    _J.CREATED: frozenset({_J.STARTING, _J.KILLED}),
    _J.STARTING: frozenset({_J.RUNNING, _J.UNRUNNABLE, _J.FAILURE, _J.KILLED}),
    _J.RUNNING: frozenset({_J.FINISHING, _J.EGRESSING, _J.FAILURE, _J.KILLED}),
    _J.EGRESSING: frozenset({_J.FINISHING, _J.FAILURE, _J.KILLED}),
    _J.FINISHING: frozenset({_J.SUCCESS, _J.FAILURE, _J.KILLED}),
    _J.FAILURE: frozenset(),
    _J.SUCCESS: frozenset(),
    _J.KILLED: frozenset(),
    _J.UNRUNNABLE: frozenset(),
}

_D = DatumState
# STARTING is known to the running engine alone; in the store such a datum is UNKNOWN, as after a crash.
DATUM_MOVES: Mapping[DatumState, frozenset[DatumState]] = {
    _D.UNKNOWN: frozenset({_D.STARTING, _D.SKIPPED}),
    # Back to UNKNOWN: interrupted by a crash, a stop of the engine, or RestartDatum.
    _D.STARTING: frozenset({_D.UNKNOWN, _D.SUCCESS, _D.FAILED, _D.RECOVERED}),
    _D.SUCCESS: frozenset(),
    _D.FAILED: frozenset(),
    _D.SKIPPED: frozenset(),
    _D.RECOVERED: frozenset(),
}

_P = PipelineState
_UPDATED = frozenset({_P.STARTING, _P.PAUSED, _P.FAILURE})
PIPELINE_MOVES: Mapping[PipelineState, frozenset[PipelineState]] = {
    _P.STARTING: frozenset({_P.STARTING, _P.RUNNING, _P.STANDBY, _P.CRASHING, _P.PAUSED, _P.FAILURE}),
    _P.RUNNING: frozenset({_P.STANDBY, _P.CRASHING, _P.RESTARTING}) | _UPDATED,
    _P.STANDBY: frozenset({_P.RUNNING, _P.CRASHING}) | _UPDATED,
    _P.RESTARTING: frozenset({_P.RUNNING, _P.CRASHING}) | _UPDATED,
    _P.CRASHING: frozenset({_P.CRASHING, _P.RUNNING, _P.STANDBY, _P.RESTARTING}) | _UPDATED,
    _P.PAUSED: frozenset({_P.STARTING, _P.PAUSED, _P.FAILURE}),
    # Sticky: only an update (or a start) leads out.
    _P.FAILURE: frozenset({_P.STARTING, _P.PAUSED, _P.FAILURE}),
}


class IllegalMove(ValueError):
    """A move that no table allows: a bug of the engine, never of its user."""


_S = TypeVar("_S", JobState, DatumState, PipelineState)


def _check(table: Mapping[_S, frozenset[_S]], old: _S, new: _S) -> _S:
    if new not in table[old]:
        raise IllegalMove(f"{type(old).__name__} {old.name} cannot become {new.name}")
    return new


def move_job(old: JobState, new: JobState) -> JobState:
    """`new`, if a job may go there from `old`; IllegalMove otherwise."""
    return _check(JOB_MOVES, old, new)


def move_datum(old: DatumState, new: DatumState) -> DatumState:
    """`new`, if a datum may go there from `old`; IllegalMove otherwise."""
    return _check(DATUM_MOVES, old, new)


def move_pipeline(old: PipelineState, new: PipelineState) -> PipelineState:
    """`new`, if a pipeline may go there from `old`; IllegalMove otherwise."""
    return _check(PIPELINE_MOVES, old, new)
