from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kaos_backend.engine.jobs.db import tables
from kaos_backend.engine.jobs.db.datums import insert_datums, list_datums, record_end
from kaos_backend.engine.jobs.db.rows import MIGRATIONS, Job, JobKey, PipelineKey, Result
from kaos_backend.engine.jobs.schedule import diagram
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
from kaos_backend.engine.jobs.spec.plan import Datum
from kaos_backend.engine.store.store import Store

KEY = PipelineKey("default", "p")


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


def test_the_diagrams_in_the_docs_show_every_legal_move_and_no_other() -> None:
    page = Path(__file__).parents[4] / "docs" / "jobs.md"
    text = page.read_text()
    assert diagram.redraw(text) == text, "run `make docs`"
    assert text.count("```mermaid") == 3
    assert diagram.draw(JOB_MOVES).count("-->") == 2 + sum(map(len, JOB_MOVES.values())) + 3


@pytest.fixture
def job(tmp_path: Path) -> Iterator[tuple[Store, Job]]:
    store = Store.open(tmp_path / "engine", migrations=MIGRATIONS)
    with store.write() as txn:
        tables.insert_version(
            txn.db,
            KEY,
            state=PipelineState.STARTING,
            spec_commit="",
            spec="{}",
            user_json="{}",
            effective_json="{}",
            now_us=1,
        )
        tables.insert_job(txn.db, tables.get_pipeline(txn.db, KEY), "a" * 32, 1)
        found = tables.get_job(txn.db, JobKey(KEY, "a" * 32))
    yield store, found
    store.close()


def test_a_job_that_moved_meanwhile_is_not_moved_by_who_saw_it_before(job: tuple[Store, Job]) -> None:
    store, seen = job
    with store.write() as txn:
        tables.set_job_state(txn.db, seen, JobState.KILLED, reason="stopped", finished_us=2)
    with pytest.raises(IllegalMove, match="is not CREATED any more"), store.write() as txn:
        tables.set_job_state(txn.db, seen, JobState.STARTING)
    with store.read() as db:
        assert tables.get_job(db, seen.key).state is JobState.KILLED


def test_a_pipeline_that_moved_meanwhile_is_not_moved_by_who_saw_it_before(job: tuple[Store, Job]) -> None:
    store, _ = job
    with store.write() as txn:
        seen = tables.get_pipeline(txn.db, KEY)
        tables.set_pipeline_state(txn.db, seen, PipelineState.PAUSED, "", stopped=True)
    with pytest.raises(IllegalMove, match="is not STARTING any more"), store.write() as txn:
        tables.set_pipeline_state(txn.db, seen, PipelineState.RUNNING, "")


def test_a_datum_ends_once_and_only_as_a_workers_datum_may(job: tuple[Store, Job]) -> None:
    store, row = job
    datum = Datum(id="0" * 64, hash="1" * 64, files=())
    with store.write() as txn:
        insert_datums(txn.db, row, [datum], {})
    with pytest.raises(IllegalMove), store.write() as txn:
        record_end(txn.db, row.seq, datum.id, Result(DatumState.SKIPPED, None))
    with store.write() as txn:
        assert record_end(txn.db, row.seq, datum.id, Result(DatumState.FAILED, None))
        assert not record_end(txn.db, row.seq, datum.id, Result(DatumState.SUCCESS, None))
    with store.read() as db:
        assert [one.state for one in list_datums(db, row.seq)] == [DatumState.FAILED]
