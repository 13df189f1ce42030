"""What pipelines make and leave in the store, over their updates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kaos_backend.engine.jobs.db.lifecycle import create_jobs
from kaos_backend.engine.jobs.db.pipelines import create_pipeline, delete_pipeline, with_defaults
from kaos_backend.engine.jobs.db.rows import MIGRATIONS, PipelineKey
from kaos_backend.engine.jobs.db.tables import jobs
from kaos_backend.engine.jobs.schedule.machine import Machine
from kaos_backend.engine.store.model import BranchKey, RepoKey
from kaos_backend.engine.store.store import Store

KEY = PipelineKey("default", "p")
DATA = RepoKey("default", "data", "user")
ONE: dict[str, Any] = {"input": {"pfs": {"repo": "data", "glob": "/"}}}
SERVICE = {**ONE, "service": {"internal_port": 80}}
SPOUT = {"spout": {}}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path, migrations=MIGRATIONS)
    opened.hooks.opened.append(create_jobs)
    with opened.write() as txn:
        txn.create_repo(DATA)
    yield opened
    opened.close()


def make(store: Store, **more: Any) -> None:
    user = {"pipeline": {"name": "p"}, "transform": {"cmd": ["true"]}, **more}
    creation = with_defaults(user, "{}", "{}", update=True, reprocess=False)
    with store.write() as txn:
        create_pipeline(txn, creation, Machine(2, 1 << 30, 0), lambda _seq: None, "salt")


def repos(store: Store) -> set[str]:
    return {repo.key.type for repo in store.list_repos() if repo.key.name == "p"}


def branches(store: Store) -> set[str]:
    return {branch.key.name for branch in store.list_branches(DATA)}


def count(store: Store) -> int:
    with store.read() as db:
        return len(jobs(db, key=KEY))


@pytest.mark.parametrize("other", [SERVICE, SPOUT])
def test_there_and_back(store: Store, other: dict[str, Any]) -> None:
    """Only what has datums has a repo that describes them."""
    make(store, **ONE)
    assert repos(store) == {"user", "spec", "meta"}
    make(store, **other)
    assert repos(store) == {"user", "spec"}
    made = count(store)
    assert made == (1 if other is SPOUT else 2)
    make(store, **ONE)
    assert repos(store) == {"user", "spec", "meta"}
    assert count(store) == made + 1
    with store.write() as txn:
        delete_pipeline(txn, KEY, lambda _seq: None)
    assert repos(store) == set()


def test_a_branch_of_its_own_goes_with_the_pipeline(store: Store) -> None:
    trigger = {"pfs": {"repo": "data", "glob": "/", "trigger": {"commits": "2"}}}
    make(store, input=trigger)
    assert branches(store) == {"p-trigger-1"}
    with store.write() as txn:
        delete_pipeline(txn, KEY, lambda _seq: None)
    assert branches(store) == set()


def test_a_branch_that_others_read_stays(store: Store) -> None:
    make(store, input={"pfs": {"repo": "data", "glob": "/", "trigger": {"commits": "2"}}})
    with store.write() as txn:
        other = RepoKey("default", "other", "user")
        txn.create_repo(other)
        own = BranchKey(DATA, "p-trigger-1")
        txn.create_branch(BranchKey(other, "master"), provenance=[own])
    with store.write() as txn:
        delete_pipeline(txn, KEY, lambda _seq: None)
    assert branches(store) == {"p-trigger-1"}


def test_a_branch_that_was_named_stays(store: Store) -> None:
    trigger = {"branch": "staging", "size": "1K"}
    make(store, input={"pfs": {"repo": "data", "glob": "/", "branch": "master", "trigger": trigger}})
    with store.write() as txn:
        delete_pipeline(txn, KEY, lambda _seq: None)
    assert branches(store) == {"master"}
