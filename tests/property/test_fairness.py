"""Who is next: never more than there is, nobody starves, workspaces share equally and then their jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from kaos_backend.engine.jobs.schedule.fair import PATIENCE, Holding, Party
from kaos_backend.engine.jobs.schedule.machine import CORE, Machine, Request, allocatable_of, why_never
from kaos_backend.engine.jobs.schedule.queue import Queue, Surroundings

ONE = Request(CORE)
parties = st.builds(Party, st.sampled_from("abc"), st.sampled_from(["build", "train"]), st.sampled_from("12"))
machines = st.builds(Machine, st.integers(1, 6), st.integers(10, 100), st.integers(0, 3))
requests = st.builds(Request, st.integers(1, 6 * CORE), st.integers(0, 100), st.integers(0, 3))


def party(workspace: str, job: str = "1") -> Party:
    return Party(workspace, "train", job)


class Load:
    """Grids that never end: of each party as many requests wait as it has threads."""

    def __init__(self, queue: Queue, seed: int) -> None:
        self.queue = queue
        self._random = Random(seed)

    def ask(self, who: Party, request: Request, count: int = 3) -> None:
        for _ in range(count):
            self.queue.enter(who, request)

    def admit(self) -> list[Holding]:
        return [found[1] for found in iter(self.queue.admit, None)]

    def end_one(self, forever: Iterable[Party]) -> None:
        """Something that runs ends, and what it was part of asks for its next."""
        one = self._random.choice(self.queue.holdings)
        self.queue.release(one)
        if one.party in forever:
            self.queue.enter(one.party, one.allocation.request)


@given(machines, st.lists(st.tuples(parties, requests), max_size=30), st.integers())
def test_whatever_comes_fits_the_machine_and_has_its_turn(
    machine: Machine, asked: list[tuple[Party, Request]], seed: int
) -> None:
    queue = Queue(machine)
    # The requests of one job are alike.
    first: dict[Party, Request] = {}
    for who, request in asked:
        first.setdefault(who, request)
    for who, _ in asked:
        if not why_never(machine, first[who]):
            queue.enter(who, first[who])
    load, waiting = Load(queue, seed), len(queue.claims)
    while waiting:
        waiting -= len(load.admit())
        held = [one.allocation for one in queue.holdings]
        assert sum(one.request.millicores for one in held) <= CORE * machine.cpus
        assert sum(one.request.memory_bytes for one in held) <= machine.memory_bytes
        assert len({gpu for one in held for gpu in one.gpus}) == sum(one.request.gpus for one in held)
        assert held, "somebody always runs while somebody waits"
        load.end_one(())
    while queue.holdings:
        load.admit()
        load.end_one(())
    assert queue.allocatable == allocatable_of(machine)


@given(
    machines,
    requests,
    st.lists(st.tuples(parties, requests), min_size=1, max_size=8),
    st.sampled_from(["a", "other"]),
    st.integers(),
)
@settings(max_examples=60)
def test_no_request_starves_however_wide_among_grids_without_end(
    machine: Machine, wide: Request, others: list[tuple[Party, Request]], workspace: str, seed: int
) -> None:
    if why_never(machine, wide):
        return
    queue = Queue(machine)
    load = Load(queue, seed)
    endless = {who: request for who, request in others if not why_never(machine, request)}
    for who, request in endless.items():
        load.ask(who, request)
    load.admit()
    one = party(workspace, "wide")
    queue.enter(one, wide)
    for _ in range(2 * PATIENCE):
        if any(holding.party == one for holding in load.admit()):
            return
        load.end_one(endless)
    raise AssertionError("it never had its turn")


@given(st.integers(2, 6), st.integers(1, 5), st.integers())
def test_a_trial_of_somebody_else_waits_for_one_end_only(cpus: int, jobs: int, seed: int) -> None:
    queue = Queue(Machine(cpus, 100, 0))
    load = Load(queue, seed)
    grids = [party("a", str(job)) for job in range(jobs)]
    for grid in grids:
        load.ask(grid, ONE, cpus + 2)
    load.admit()
    for _ in range(3 * cpus):
        load.end_one(grids)
        load.admit()
    queue.enter(party("b"), ONE)
    assert not load.admit()
    load.end_one(grids)
    assert [holding.party for holding in load.admit()] == [party("b")]


def test_on_a_single_core_too() -> None:
    queue = Queue(Machine(1, 100, 0))
    load = Load(queue, 0)
    grid = party("a")
    load.ask(grid, ONE)
    load.admit()
    queue.enter(party("b"), ONE)
    load.end_one([grid])
    assert [holding.party for holding in load.admit()] == [party("b")]


@given(st.integers(1, 4), st.integers(1, 4), st.integers())
def test_weights_are_equal_between_workspaces_then_between_jobs(jobs_a: int, jobs_b: int, seed: int) -> None:
    queue = Queue(Machine(8, 100, 0))
    load = Load(queue, seed)
    grids = [party("a", str(job)) for job in range(jobs_a)] + [party("b", str(job)) for job in range(jobs_b)]
    for grid in grids:
        load.ask(grid, ONE, 10)
    load.admit()
    for _ in range(50):
        held = Counter(one.party.workspace for one in queue.holdings)
        assert held == {"a": 4, "b": 4}
        for workspace in "ab":
            per_job = Counter(one.party for one in queue.holdings if one.party.workspace == workspace)
            assert max(per_job.values()) - min(per_job[g] for g in grids if g.workspace == workspace) <= 1
        load.end_one(grids)
        load.admit()


def test_what_waits_for_a_gpu_keeps_a_core_for_itself_and_leaves_the_others() -> None:
    queue = Queue(Machine(4, 100, 1))
    load = Load(queue, 0)
    on_gpu = Request(CORE, gpus=1)
    queue.enter(party("a"), on_gpu)
    load.admit()
    queue.enter(party("b"), on_gpu)
    load.ask(party("c"), ONE, 5)
    assert [holding.party.workspace for holding in load.admit()] == ["c", "c"]
    assert (
        queue.why(party("c"), ONE) == "its turn, after job 1 of b/train, which waits for 1 gpu (0 of 1 free)"
    )


def test_what_cannot_run_beside_the_next_one_keeps_nothing_idle() -> None:
    queue = Queue(Machine(4, 100, 1))
    load = Load(queue, 0)
    queue.enter(party("a"), Request(CORE, gpus=1))
    load.admit()
    queue.enter(party("b"), Request(CORE, gpus=1))
    queue.enter(party("c"), Request(4 * CORE))
    load.ask(party("d"), ONE, 5)
    assert [holding.party.workspace for holding in load.admit()] == ["d", "d"]


def test_gpus_that_other_programs_are_on_are_left_alone() -> None:
    queue = Queue(Machine(4, 100, 2), Surroundings(taken_gpus={0: "blender (pid 7)"}))
    load = Load(queue, 0)
    on_gpu = Request(CORE, gpus=1)
    load.ask(party("a"), on_gpu, 2)
    (holding,) = load.admit()
    assert holding.allocation.gpus == (1,)
    assert "1 gpu (0 of 2 free, 1 taken by other programs)" in queue.why(party("a"), on_gpu)
    queue.surroundings = Surroundings()
    (holding,) = load.admit()
    assert holding.allocation.gpus == (0,)


def test_room_on_the_disk_is_granted_once() -> None:
    queue = Queue(Machine(4, 100, 0, disk_bytes=1000), Surroundings(free_disk_bytes=500))
    load = Load(queue, 0)
    request = Request(CORE, disk_bytes=300)
    load.ask(party("a"), request, 2)
    assert len(load.admit()) == 1
    assert "300 B of disk (200 B free)" in queue.why(party("a"), request)
    load.end_one(())
    assert len(load.admit()) == 1
