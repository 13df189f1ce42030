from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos_formats.errors import InvalidResources
from kaos_formats.quantity import check_cpu, format_bytes, parse_bytes, parse_duration, parse_memory


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
        ("9E9", 9 * 10**9),
        ("1500m", 2),
        (".5k", 500),
        ("64K", 64_000),
        ("1Ki", 1024),
        ("+7", 7),
        ("0", 0),
    ],
)
def test_quantities(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "4GB",
            "4 G",
            " 4G",
            "4G\n",
            "lots",
            "-1G",
            "0.4m0",
            "1e",
            "NaN",
            "1e99",
            "²",
            "٣",
            "4g",
            "1,5G",
        ),
        *("9999999E", "G", "1ki", "1e999", "9" * 5000),
    ],
)
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(InvalidResources) as caught:
        parse_bytes(text)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("text", ["0", "0.0Gi", "0e9"])
def test_nothing_runs_in_no_memory(text: str) -> None:
    assert parse_bytes(text) == 0
    with pytest.raises(InvalidResources, match="0 bytes"):
        parse_memory(text)


@given(st.text(max_size=8))
def test_any_text_is_a_size_or_refused(text: str) -> None:
    with suppress(InvalidResources):
        assert 0 <= parse_bytes(text) < 2**63


@given(st.integers(0, 2**63 - 1))
def test_plain_bytes_are_themselves(count: int) -> None:
    assert parse_bytes(str(count)) == count


@pytest.mark.parametrize("cores", [0, -1, float("nan"), float("inf")])
def test_cores_are_a_number_above_zero(cores: float) -> None:
    assert check_cpu(0.5) == 0.5
    with pytest.raises(InvalidResources):
        check_cpu(cores)


def test_bytes_for_people() -> None:
    assert [format_bytes(n) for n in (7, 1536, 3 << 40)] == ["7 B", "1.5 KiB", "3 TiB"]


def test_durations() -> None:
    assert parse_duration("1.5s") == 1.5
    for bad in ("1m", "s", "1", "", "1s\n", "٣s"):
        with pytest.raises(ValueError, match="duration"):
            parse_duration(bad)
