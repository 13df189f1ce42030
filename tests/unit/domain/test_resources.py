from __future__ import annotations

import pytest

from kaos_backend.domain.resources import (
    Resources,
    apply,
    check_parallelism,
    default_parallelism,
)
from kaos_backend.errors import InvalidResources


@pytest.mark.parametrize("cpu", [0, -1, float("nan"), float("inf")])
def test_cpu_must_be_positive(cpu: float) -> None:
    with pytest.raises(InvalidResources):
        apply(Resources(), cpu=cpu)


def test_only_what_is_given_changes() -> None:
    changed = apply(Resources(cpu=2, memory=10**9, gpu=1), memory="2Gi")
    assert changed == Resources(2, 2**31, 1)
    with pytest.raises(InvalidResources):
        apply(Resources(), gpu=-1)
    limited = apply(Resources(), tries=3, timeout_s=90.0)
    assert limited == Resources(tries=3, timeout_s=90.0)
    assert apply(limited, cpu=2.0).timeout_s == 90.0
    assert apply(limited, timeout_s=0.0) == Resources(tries=3)
    for wrong in ({"tries": 0}, {"tries": 101}, {"timeout_s": -1.0}, {"timeout_s": float("nan")}):
        with pytest.raises(InvalidResources):
            apply(Resources(), **wrong)  # type: ignore[arg-type]


def test_parallelism() -> None:
    assert check_parallelism(3) == 3
    for value in (0, -1, 10**6):
        with pytest.raises(InvalidResources):
            check_parallelism(value)
    assert default_parallelism(None, 1) == 1
    assert default_parallelism(4, 0.5) == 8
    assert default_parallelism(2, 4) == 1
