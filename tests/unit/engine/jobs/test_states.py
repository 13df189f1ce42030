from __future__ import annotations

import pytest

from kaos_backend.engine.jobs.schedule.states import (
    DATUM_MOVES,
    JOB_MOVES,
    PIPELINE_MOVES,
    TERMINAL_JOBS,
    DatumState,
    IllegalMove,
    JobState,
    PipelineState,
    move_datum,
    move_job,
    move_pipeline,
)


@pytest.mark.parametrize("old", JobState)
@pytest.mark.parametrize("new", JobState)
def test_a_job_moves_only_as_the_table_says(old: JobState, new: JobState) -> None:
    if new in JOB_MOVES[old]:
        assert move_job(old, new) is new
    else:
        with pytest.raises(IllegalMove, match=f"{old.name} cannot become {new.name}"):
            move_job(old, new)


@pytest.mark.parametrize("old", DatumState)
@pytest.mark.parametrize("new", DatumState)
def test_a_datum_moves_only_as_the_table_says(old: DatumState, new: DatumState) -> None:
    if new in DATUM_MOVES[old]:
        assert move_datum(old, new) is new
    else:
        with pytest.raises(IllegalMove):
            move_datum(old, new)


@pytest.mark.parametrize("old", PipelineState)
@pytest.mark.parametrize("new", PipelineState)
def test_a_pipeline_moves_only_as_the_table_says(old: PipelineState, new: PipelineState) -> None:
    if new in PIPELINE_MOVES[old]:
        assert move_pipeline(old, new) is new
    else:
        with pytest.raises(IllegalMove):
            move_pipeline(old, new)


def test_what_ended_never_moves_and_everything_else_can_be_killed() -> None:
    for state, moves in JOB_MOVES.items():
        assert (not moves) == (state in TERMINAL_JOBS)
        if state not in TERMINAL_JOBS:
            assert JobState.KILLED in moves


def test_a_failed_pipeline_stays_so_until_it_is_updated() -> None:
    assert PipelineState.RUNNING not in PIPELINE_MOVES[PipelineState.FAILURE]
    assert PipelineState.STARTING in PIPELINE_MOVES[PipelineState.FAILURE]


def test_the_numbers_are_those_of_the_protocol() -> None:
    from pachyderm_sdk.api import pps

    assert {s.value: f"JOB_{s.name}" for s in JobState} == {s.value: s.name for s in pps.JobState if s.value}
    assert {s.value: s.name for s in DatumState} == {s.value: s.name for s in pps.DatumState}
    assert {s.value: f"PIPELINE_{s.name}" for s in PipelineState} == {
        s.value: s.name for s in pps.PipelineState if s.value
    }
