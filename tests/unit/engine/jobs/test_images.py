"""Which images are forgotten: those that no version of any pipeline names."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kaos_backend.engine.errors import EngineError, Unknown
from kaos_backend.engine.jobs.db import tables
from kaos_backend.engine.jobs.db.pipelines import create_pipeline, delete_pipeline, with_defaults
from kaos_backend.engine.jobs.db.rows import MIGRATIONS, PipelineKey
from kaos_backend.engine.jobs.run import images
from kaos_backend.engine.jobs.run.images import AwaitedImages, ForgottenImages, why_lost
from kaos_backend.engine.jobs.schedule.machine import Machine
from kaos_backend.engine.store.model import RepoKey
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.workers.port import StoredImage, Worker, WorkerSpec, missing

NAMES = ("kaos/ws:1", "kaos/ws:1-docker", "kaos/ws:2", "kaos/ws:3")


class Shelf:
    """A runtime of which only the images matter. `trouble`: what the next removals meet, in turn."""

    name, isolation, notes, own_network = "shelf", "none", (), False

    def __init__(self) -> None:
        self.images = set(NAMES)
        self.trouble: list[EngineError | bool] = []

    def keep_images(self, wanted: Callable[[str], bool]) -> bool:
        met = self.trouble.pop(0) if self.trouble else True
        if isinstance(met, EngineError):
            raise met
        self.images = {name for name in self.images if wanted(name) or not met}
        return met

    def image_problem(self, image: str) -> str:
        return "" if image in self.images else "gone"

    def protects_inputs(self, image: str) -> bool:
        return True

    def stored_images(self) -> list[StoredImage]:
        return []

    def start_worker(self, spec: WorkerSpec) -> Worker:
        raise Unknown(spec.image)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path, migrations=MIGRATIONS)
    with opened.write() as txn:
        txn.create_repo(RepoKey("default", "data", "user"))
    yield opened
    opened.close()


def put(store: Store, image: str, builds: str = "") -> None:
    transform = {"cmd": ["true"], "image": image, "env": {"KAOS_IMAGE": builds}}
    user = {
        "pipeline": {"name": "p"},
        "transform": transform,
        "input": {"pfs": {"repo": "data", "glob": "/"}},
    }
    creation = with_defaults(user, "{}", "{}", update=True, reprocess=False)
    with store.write() as txn:
        create_pipeline(txn, creation, Machine(2, 1 << 30, 0), lambda _seq: None, "salt")


def removed(forgotten: ForgottenImages) -> None:
    forgotten.remove()
    assert forgotten._thread is not None
    forgotten._thread.join(30)
    assert not forgotten._thread.is_alive()


def test_what_any_version_runs_in_or_builds_is_kept(store: Store) -> None:
    put(store, "kaos/ws:1-docker")
    put(store, "kaos/builder", builds="kaos/ws:2")
    shelf = Shelf()
    forgotten = ForgottenImages(store, shelf)
    removed(forgotten)
    assert shelf.images == {"kaos/ws:1-docker", "kaos/ws:2"}
    with store.write() as txn:
        delete_pipeline(txn, PipelineKey("default", "p"), lambda _seq: None)
    forgotten.remove()  # nobody said that there is anything to do
    assert shelf.images == {"kaos/ws:1-docker", "kaos/ws:2"}
    forgotten.forget()
    removed(forgotten)
    assert shelf.images == set()
    forgotten.close()


def test_what_was_built_while_somebody_asked_is_not_lost(store: Store) -> None:
    image = "kaos/ws:2"
    problem = missing(image)
    shelf = Shelf()
    put(store, "kaos/builder", builds=image)
    shelf.image_problem = lambda _: problem  # type: ignore[method-assign]
    with store.write() as txn:
        tables.insert_job(txn.db, tables.get_pipeline(txn.db, PipelineKey("default", "p")), "1" * 32, 1)
    assert why_lost(store, shelf, image, problem) == ""  # its build is open
    with store.write() as txn:
        txn.db.execute("UPDATE pps_jobs SET finished_us = 1")
    assert why_lost(store, shelf, image, problem) == f"image missing: {problem}"
    assert why_lost(store, shelf, image, "no Docker engine answers") == ""
    assert why_lost(store, shelf, "kaos/ws:3", missing("kaos/ws:3")) == ""  # nobody ever built it
    shelf.image_problem = lambda _: ""  # type: ignore[method-assign]
    assert why_lost(store, shelf, image, problem) == ""


def test_what_is_in_use_goes_a_moment_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_RETRY_S", 0.0)
    shelf = Shelf()
    shelf.trouble = [False, False]
    removed(ForgottenImages(store, shelf))
    assert shelf.images == set()


def test_a_store_of_images_that_does_not_answer_is_asked_again_when_there_is_reason_to(store: Store) -> None:
    shelf = Shelf()
    shelf.trouble = [Unknown("no Docker engine answers")]
    forgotten = ForgottenImages(store, shelf)
    removed(forgotten)
    assert shelf.images == set(NAMES)
    forgotten.forget()
    removed(forgotten)
    assert shelf.images == set()


def test_closing_ends_the_waiting(store: Store) -> None:
    asked = threading.Event()

    class Busy(Shelf):
        def keep_images(self, wanted: Callable[[str], bool]) -> bool:
            asked.set()
            return False

    forgotten = ForgottenImages(store, Busy())
    forgotten.remove()
    assert asked.wait(30)
    forgotten.close()
    assert forgotten._thread is not None
    assert not forgotten._thread.is_alive()


def test_an_image_that_is_awaited_is_asked_for_once_in_a_while_and_after_each_run() -> None:
    shelf, now = Shelf(), 0.0
    shelf.images.clear()
    awaited = AwaitedImages(shelf, lambda: now, patience_s=0.5)
    assert awaited.problem("kaos/ws:1") == "gone"
    shelf.images.add("kaos/ws:1")
    assert awaited.problem("kaos/ws:1") == "gone"
    now = 0.5
    assert awaited.problem("kaos/ws:1") == ""
    shelf.images.clear()
    assert awaited.problem("kaos/ws:1") == "gone"
    shelf.images.add("kaos/ws:1")
    awaited.look_again()
    assert awaited.problem("kaos/ws:1") == ""
