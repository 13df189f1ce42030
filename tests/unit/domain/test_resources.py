from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos_backend.domain.resources import (
    Resources,
    apply,
    check_parallelism,
    default_parallelism,
    parse_quantity,
)
from kaos_backend.errors import InvalidResources


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4G", 4 * 10**9),
        ("512Mi", 512 * 2**20),
        ("1000000", 10**6),
        ("1.5Gi", 3 * 2**29),
        ("1e9", 10**9),
        ("1E3", 1000),
        ("2E", 2 * 10**18),
        ("1500m", 2),
        (".5k", 500),
        ("1Ki", 1024),
    ],
)
def test_quantities(text: str, size: int) -> None:
    assert parse_quantity(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "4GB", "4 G", "lots", "-1G", "0", "0.4m0", "1K", "1e", "NaN", "1e99", "²", "4g", "1,5G", "9E9"],
)
def test_what_is_no_quantity(text: str) -> None:
    if text == "9E9":
        assert parse_quantity(text) == 9 * 10**9
        return
    with pytest.raises(InvalidResources):
        parse_quantity(text)


@given(st.text(max_size=8))
def test_any_text_is_a_size_or_refused(text: str) -> None:
    with suppress(InvalidResources):
        assert parse_quantity(text) >= 1


@pytest.mark.parametrize("cpu", [0, -1, float("nan"), float("inf")])
def test_cpu_must_be_positive(cpu: float) -> None:
    with pytest.raises(InvalidResources):
        apply(Resources(), cpu=cpu)


def test_only_what_is_given_changes() -> None:
    changed = apply(Resources(cpu=2, memory=10**9, gpu=1), memory="2Gi")
    assert changed == Resources(2, 2**31, 1)
    with pytest.raises(InvalidResources):
        apply(Resources(), gpu=-1)


def test_parallelism() -> None:
    assert check_parallelism(3) == 3
    for value in (0, -1, 10**6):
        with pytest.raises(InvalidResources):
            check_parallelism(value)
    assert default_parallelism(None, 1) == 1
    assert default_parallelism(4, 0.5) == 8
    assert default_parallelism(2, 4) == 1
