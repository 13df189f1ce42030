"""A job's run on its own, with ends that the test makes up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.jobs.db.rows import MIGRATIONS, Job, JobKey, Pipeline, PipelineKey
from kaos_backend.engine.jobs.run.inputs import InputCache
from kaos_backend.engine.jobs.run.job import JobRun
from kaos_backend.engine.jobs.spec.spec import Spec
from kaos_backend.engine.store.store import Store
from tests.support.outcomes import outcome, packs_open


def run_of(store: Store, scratch: Path) -> JobRun:
    runtime = SimpleNamespace(protects_inputs=lambda _: True)
    inputs = InputCache(store, scratch / "trees")
    parts = SimpleNamespace(store=store, clock=store.clock, scratch=scratch, runtime=runtime, inputs=inputs)
    pool = SimpleNamespace(spec=SimpleNamespace(image=""))
    job = SimpleNamespace(seq=1, key=JobKey(PipelineKey("default", "p"), "0" * 32))
    pipeline = SimpleNamespace(spec=Spec())
    return JobRun(cast(Any, parts), cast(Pipeline, pipeline), cast(Job, job), cast(Any, pool), lambda _: None)


def test_an_output_that_cannot_be_recorded_holds_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path / "engine", migrations=MIGRATIONS)
    run = run_of(store, tmp_path / "scratch")
    run._ended = [outcome(store, tmp_path / "out")]

    def broken() -> None:
        raise EngineError("broken")

    monkeypatch.setattr(store, "write", broken)
    with pytest.raises(EngineError):
        run._record_last()
    assert packs_open(tmp_path) == 0
    store.close()
