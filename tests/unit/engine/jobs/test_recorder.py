"""A job's recorder on its own, with ends that the test makes up."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from kaos_backend.engine.jobs.db.rows import MIGRATIONS, Job, JobKey, PipelineKey
from kaos_backend.engine.jobs.run.recorder import Recorder
from kaos_backend.engine.store.store import Store
from tests.support.outcomes import outcome, packs_open


def recorder_of(store: Store) -> Recorder:
    job = SimpleNamespace(seq=1, key=JobKey(PipelineKey("default", "p"), "0" * 32))
    return Recorder(store, cast(Job, job))


def test_a_recorded_output_holds_no_descriptor(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "engine", migrations=MIGRATIONS)
    recorder = recorder_of(store)
    end = outcome(store, tmp_path / "out")
    assert packs_open(tmp_path) == 1
    recorder.record([end], show=True)
    assert packs_open(tmp_path) == 0
    assert end.staged is not None
    assert store.stat(end.staged.root, "/").size_bytes == 200_000
    store.close()


def test_a_commit_that_somebody_finished_is_not_refreshed_at_once_again(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "engine", migrations=MIGRATIONS)
    recorder = recorder_of(store)
    recorder._unmerged = [b"x" * 32]
    before = time.monotonic()
    recorder.record([], show=True)
    assert recorder._refresh_at > before
    assert recorder._unmerged == []
    store.close()
