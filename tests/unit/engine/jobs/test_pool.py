"""The workers of a pipeline version, started ahead of who borrows them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from kaos_backend.engine.errors import Unknown
from kaos_backend.engine.jobs.run.pool import Pool
from kaos_backend.engine.workers.port import DatumRun, Exit, StoredImage, WorkerSpec

SPEC = WorkerSpec(name="p-v1", image="image", env={}, user="", working_dir=None)
WITHIN_S = 10.0


@dataclass
class Idler:
    name: str
    host: str = "127.0.0.1"
    closed: threading.Event = field(default_factory=threading.Event)

    def run(self, run: DatumRun, cancel: threading.Event) -> Exit:
        raise NotImplementedError

    def close(self) -> None:
        self.closed.set()


class Starts:
    """A runtime whose workers start when they may. `trouble`: what the next starts meet, in turn."""

    name, isolation, notes, protects_inputs, own_network = "starts", "none", (), True, False

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.may = threading.Event()
        self.trouble: list[str] = []
        self.started: list[Idler] = []

    def start_worker(self, spec: WorkerSpec) -> Idler:
        self.begun.release()
        assert self.may.wait(WITHIN_S)
        if self.trouble:
            raise Unknown(self.trouble.pop())
        self.started.append(Idler(spec.env["PPS_POD_NAME"]))
        return self.started[-1]

    def image_problem(self, image: str) -> str:
        return ""

    def keep_images(self, wanted: Callable[[str], bool]) -> bool:
        return True

    def stored_images(self) -> list[StoredImage]:
        return []


@pytest.fixture
def runtime() -> Starts:
    return Starts()


@pytest.fixture
def pool(runtime: Starts) -> Pool:
    ticks = itertools.count()
    return Pool(runtime, SPEC, lambda: float(next(ticks)))


def test_who_borrows_waits_for_the_worker_that_comes(runtime: Starts, pool: Pool) -> None:
    pool.warm_up()
    pool.warm_up()
    assert runtime.begun.acquire(timeout=WITHIN_S)
    borrowed: list[object] = []
    waits = threading.Thread(target=lambda: borrowed.append(pool.borrow()))
    waits.start()
    runtime.may.set()
    waits.join(WITHIN_S)
    assert borrowed == runtime.started
    assert len(runtime.started) == 1


def test_two_who_borrow_have_one_each(runtime: Starts, pool: Pool) -> None:
    runtime.may.set()
    pool.warm_up()
    first, second = pool.borrow(), pool.borrow()
    assert first is not second
    assert [worker.name for worker in runtime.started] == ["p-v1-1", "p-v1-2"]


def test_an_idle_worker_is_enough(runtime: Starts, pool: Pool) -> None:
    runtime.may.set()
    pool.give_back(pool.borrow())
    pool.warm_up()
    assert pool.borrow() is runtime.started[0]
    assert len(runtime.started) == 1


def test_who_borrows_is_told_why_none_starts(runtime: Starts, pool: Pool) -> None:
    runtime.trouble = ["no image", "no image, still"]
    pool.warm_up()
    runtime.may.set()
    with pytest.raises(Unknown, match="no image"):
        pool.borrow()
    pool.close()


def test_a_pool_is_not_forgotten_while_a_worker_comes(runtime: Starts, pool: Pool) -> None:
    pool.warm_up()
    assert pool.close_idle(float("inf")) == 1
    runtime.may.set()
    pool.borrow()
    assert pool.close_idle(float("inf")) == 0


def test_a_pool_that_is_closed_leaves_none_behind(runtime: Starts, pool: Pool) -> None:
    pool.warm_up()
    assert runtime.begun.acquire(timeout=WITHIN_S)
    closes = threading.Thread(target=pool.close)
    closes.start()
    runtime.may.set()
    closes.join(WITHIN_S)
    assert [worker.closed.is_set() for worker in runtime.started] == [True]
