"""Whatever comes and goes, what is handed out never exceeds the machine; giving all back restores it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kaos_backend.engine.jobs.schedule.admission import capacity
from kaos_backend.engine.jobs.schedule.machine import (
    CORE,
    Allocation,
    Machine,
    Request,
    allocatable_of,
    allocate,
    release,
    why_never,
)

machines = st.builds(Machine, st.integers(1, 8), st.integers(0, 100), st.integers(0, 4))
requests = st.builds(Request, st.integers(1, 4 * CORE), st.integers(0, 60), st.integers(0, 3))


@given(machines, st.lists(st.one_of(requests, st.integers(0, 20)), max_size=60))
def test_never_more_than_there_is(machine: Machine, script: list[Request | int]) -> None:
    allocatable, out = allocatable_of(machine), list[Allocation]()
    for step in script:
        if isinstance(step, int):
            if out:
                allocatable = release(allocatable, out.pop(step % len(out)))
        elif (allocated := allocate(allocatable, step)) is not None:
            allocatable, allocation = allocated
            out.append(allocation)
            assert sum(share for _, share in allocation.shares) == step.millicores
            assert len(allocation.grant(machine).cores) == -(-step.millicores // CORE)
        per_core: dict[int, int] = {}
        for allocation in out:
            for core, share in allocation.shares:
                per_core[core] = per_core.get(core, 0) + share
        assert all(0 <= core < machine.cpus and used <= CORE for core, used in per_core.items())
        assert sum(b.request.memory_bytes for b in out) <= machine.memory_bytes
        gpus = [g for b in out for g in b.gpus]
        assert len(gpus) == len(set(gpus)) <= machine.gpus
    for allocation in out:
        allocatable = release(allocatable, allocation)
    assert allocatable == allocatable_of(machine)


@given(machines, requests)
def test_what_is_not_refused_fits_an_empty_machine(machine: Machine, request: Request) -> None:
    fits = allocate(allocatable_of(machine), request) is not None
    assert fits == (why_never(machine, request) == "")
    assert (capacity(machine, request, 1) == 1) == fits
