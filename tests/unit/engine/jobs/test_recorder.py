"""A job's recorder on its own, with ends that the test makes up."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from kaos_backend.engine.jobs.db.rows import MIGRATIONS, Job, JobKey, PipelineKey
from kaos_backend.engine.jobs.run import recorder as recorder_module
from kaos_backend.engine.jobs.run.recorder import Recorder
from kaos_backend.engine.store.model import BranchKey, FileSource, RepoKey
from kaos_backend.engine.store.store import Store
from tests.support.outcomes import outcome, packs_open


def recorder_of(store: Store, id: str = "0" * 32) -> Recorder:
    job = SimpleNamespace(seq=1, key=JobKey(PipelineKey("default", "p"), id))
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


def test_the_more_is_written_anew_the_longer_it_is_until_the_next_time(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "engine", migrations=MIGRATIONS)
    repo = RepoKey("default", "p")
    with store.write() as txn:
        txn.create_repo(repo)
        commit = txn.start_commit(BranchKey(repo, "master"))
        roots = [txn.build_tree([(f"/{n}/file", FileSource(b"x"))]) for n in range(5000)]
    recorder = recorder_of(store, commit.id)

    def wait_s() -> float:
        """After what is unmerged was shown."""
        recorder._refresh_at = 0
        recorder.record([], show=True)
        due_s = recorder.due_s(time.monotonic())
        assert due_s is None
        return recorder._refresh_at - time.monotonic()

    recorder._unmerged = [root for root in roots[:-1] if root is not None]
    many_s = wait_s()
    recorder._unmerged = [root for root in roots[-1:] if root is not None]
    assert wait_s() < many_s
    root = store.inspect_commit(commit).root
    assert len(list(store.list_dir(root, "/"))) == 5000
    assert root == store.merge(roots)
    store.close()


def test_damage_of_what_an_earlier_job_left_costs_this_one_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path / "engine", migrations=MIGRATIONS)
    repo = RepoKey("default", "p")
    with store.write() as txn:
        txn.create_repo(repo)
        commit = txn.start_commit(BranchKey(repo, "master"))
        roots = [root for n in range(3) if (root := txn.build_tree([(f"/{n}", FileSource(b"x"))]))]
    monkeypatch.setattr(recorder_module, "kept_roots", lambda *_: roots)
    recorder = recorder_of(store, commit.id)
    recorder._root, recorder._unmerged = b"x" * 32, roots[-1:]
    recorder.record([], show=True)
    assert store.inspect_commit(commit).root == recorder._root == store.merge(roots)
    store.close()
