"""A job's run on its own, with ends that the test makes up."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.jobs.db.rows import MIGRATIONS, DatumRow, Job, JobKey, Pipeline, PipelineKey
from kaos_backend.engine.jobs.run.datum import Outcome
from kaos_backend.engine.jobs.run.job import JobRun
from kaos_backend.engine.jobs.schedule.states import DatumState
from kaos_backend.engine.jobs.spec.spec import Spec
from kaos_backend.engine.store.store import Store
from tests.support.files import new_files


def run_of(store: Store, scratch: Path) -> JobRun:
    parts = SimpleNamespace(store=store, clock=store.clock, scratch=scratch)
    job = SimpleNamespace(seq=1, key=JobKey(PipelineKey("default", "p"), "0" * 32))
    pipeline = SimpleNamespace(spec=Spec())
    return JobRun(cast(Any, parts), cast(Pipeline, pipeline), cast(Job, job), cast(Any, None), lambda _: None)


def outcome(store: Store, directory: Path) -> Outcome:
    """The end of a datum whose output is too large for SQLite and too small for a file of its own."""
    directory.mkdir()
    (directory / "model").write_bytes(os.urandom(200_000))
    datum = cast(DatumRow, SimpleNamespace(id="ab" * 32))
    staged = store.stage(new_files(directory), datum.id)
    return Outcome(datum, DatumState.SUCCESS, staged, "", 1, 0, 0, 0)


def packs_open(root: Path) -> int:
    """Descriptors of packs below `root`: a store that another test left open does not count."""
    targets = [str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if os.path.lexists(fd)]
    return sum(target.startswith(str(root)) and ".pack" in target for target in targets)


def test_a_recorded_output_holds_no_descriptor(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "engine", migrations=MIGRATIONS)
    run = run_of(store, tmp_path / "scratch")
    end = outcome(store, tmp_path / "out")
    assert packs_open(tmp_path) == 1
    run._record([end], refresh=True)
    assert packs_open(tmp_path) == 0
    assert end.staged is not None
    assert store.stat(end.staged.root, "/").size_bytes == 200_000
    store.close()


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


def test_a_commit_that_somebody_finished_is_not_refreshed_at_once_again(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "engine", migrations=MIGRATIONS)
    run = run_of(store, tmp_path / "scratch")
    run._unmerged = [b"x" * 32]
    before = time.monotonic()
    run._record([], refresh=True)
    assert run._refreshed_at >= before
    assert run._unmerged == []
    store.close()
