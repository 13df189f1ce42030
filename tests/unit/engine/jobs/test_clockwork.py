"""What happens by time, with a clock that is set by hand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kaos_backend.engine.errors import Unknown
from kaos_backend.engine.jobs.clockwork import Clockwork
from kaos_backend.engine.jobs.db.pipelines import create_pipeline, stop_pipeline, with_defaults
from kaos_backend.engine.jobs.db.rows import MIGRATIONS, PipelineKey
from kaos_backend.engine.jobs.schedule.machine import Machine
from kaos_backend.engine.store.model import BranchKey, RepoKey
from kaos_backend.engine.store.store import Store

TICKS = RepoKey("default", "p_tick", "user")


class Time:
    def __init__(self, text: str) -> None:
        self.now = datetime.fromisoformat(text).replace(tzinfo=UTC)

    def __call__(self) -> int:
        return int(self.now.timestamp() * 1e6)

    def set(self, text: str) -> None:
        self.now = datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def time() -> Time:
    return Time("2024-01-01T00:00:30")


@pytest.fixture
def store(tmp_path: Path, time: Time) -> Iterator[Store]:
    opened = Store.open(tmp_path, time, migrations=MIGRATIONS)
    yield opened
    opened.close()


def pipeline(store: Store, **cron: object) -> None:
    user = {
        "pipeline": {"name": "p", "project": {"name": "default"}},
        "transform": {"cmd": ["true"]},
        "input": {"cron": {"name": "tick", **cron}},
    }
    creation = with_defaults(user, "{}", "{}", update=True, reprocess=False)
    with store.write() as txn:
        create_pipeline(txn, creation, Machine(1, 1 << 30, 0), lambda _seq: None, "salt")


def catch_up(clockwork: Clockwork) -> None:
    """Turn until nothing is due."""
    while clockwork.turn() == 0:
        pass


def ticks(store: Store) -> list[str]:
    root = store.resolve_commit(TICKS, "master").root
    return [entry.path for entry in store.list_dir(root, "/")]


def test_it_ticks_when_it_is_time(store: Store, time: Time) -> None:
    pipeline(store, spec="* * * * *")
    clockwork = Clockwork(store, time)
    assert clockwork.turn() == 30
    assert ticks(store) == []
    time.set("2024-01-01T00:01:00")
    clockwork.turn()
    assert ticks(store) == ["/2024-01-01T00:01:00Z"]
    clockwork.turn()
    assert len(ticks(store)) == 1, "the same minute again"


def test_what_was_missed_is_made_up_after_a_restart(store: Store, time: Time) -> None:
    pipeline(store, spec="* * * * *")
    time.set("2024-01-01T00:01:05")
    Clockwork(store, time).turn()
    time.set("2024-01-01T00:04:10")
    catch_up(Clockwork(store, time))
    assert ticks(store) == [f"/2024-01-01T00:0{minute}:00Z" for minute in (1, 2, 3, 4)]
    sets = [commit.key.id for commit in store.list_commits(TICKS) if commit.origin == "USER"]
    assert len(sets) == 4, "each is a commit of its own"


def test_overwrite_keeps_the_latest(store: Store, time: Time) -> None:
    pipeline(store, spec="@every 60s", overwrite=True)
    time.set("2024-01-01T00:03:00")
    catch_up(Clockwork(store, time))
    assert ticks(store) == ["/2024-01-01T00:02:30Z"]


def test_jobs_go_on_between_ticks_that_are_made_up(store: Store, time: Time) -> None:
    pipeline(store, spec="* * * * *")
    time.set("2024-01-01T00:10:00")
    assert Clockwork(store, time).turn() == 0
    assert len(ticks(store)) == 1


def test_more_ticks_than_anybody_can_mean(store: Store) -> None:
    with pytest.raises(Unknown, match="choose a later start"):
        pipeline(store, spec="@every 1s", start="2000-01-01T00:00:00Z")


def test_a_stopped_pipeline_does_not_tick(store: Store, time: Time) -> None:
    pipeline(store, spec="* * * * *")
    clockwork = Clockwork(store, time)
    clockwork.turn()
    with store.write() as txn:
        stop_pipeline(txn, PipelineKey("default", "p"), lambda _seq: None)
    time.set("2024-01-01T01:00:00")
    assert clockwork.turn() is None
    assert ticks(store) == []


def test_an_update_changes_the_time(store: Store, time: Time) -> None:
    pipeline(store, spec="@never")
    clockwork = Clockwork(store, time)
    assert clockwork.turn() is None
    pipeline(store, spec="0 6 * * *")
    clockwork.turn()
    time.set("2024-01-01T06:00:00")
    clockwork.turn()
    assert ticks(store) == ["/2024-01-01T06:00:00Z"]


def test_a_trigger_by_time(store: Store, time: Time) -> None:
    repo = RepoKey("default", "r", "user")
    master, daily = BranchKey(repo, "master"), BranchKey(repo, "daily")
    with store.write() as txn:
        txn.create_repo(repo)
        txn.create_branch(master)
    with store.write() as txn:
        txn.create_branch(daily, trigger=b'{"branch": "master", "cron_spec": "@daily"}')
    clockwork = Clockwork(store, time)
    clockwork.turn()
    for _ in range(2):
        with store.write() as txn:
            done = txn.start_commit(master)
            txn.finish_commit(done)
    with store.write() as txn:
        txn.start_commit(master)
    clockwork.turn()
    assert store.inspect_branch(daily).head != done
    time.set("2024-01-02T00:00:00")
    clockwork.turn()
    assert store.inspect_branch(daily).head == done, "the last one that is finished"


def test_a_trigger_at_most_so_often(store: Store, time: Time) -> None:
    repo = RepoKey("default", "r", "user")
    master, hourly = BranchKey(repo, "master"), BranchKey(repo, "hourly")
    with store.write() as txn:
        txn.create_repo(repo)
        txn.create_branch(master)
    with store.write() as txn:
        txn.create_branch(hourly, trigger=b'{"branch": "master", "rate_limit_spec": "@hourly"}')

    def commit() -> object:
        with store.write() as txn:
            done = txn.start_commit(master)
            txn.finish_commit(done)
        return done

    first = store.inspect_branch(hourly).head
    commit()
    assert store.inspect_branch(hourly).head == first
    time.set("2024-01-01T01:00:00")
    moved = commit()
    assert store.inspect_branch(hourly).head == moved
    commit()
    assert store.inspect_branch(hourly).head == moved
