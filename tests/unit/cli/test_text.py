from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kaos_cli import text
from kaos_cli.watch import exit_code, pause

NOW = datetime(2020, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (34_567, "34.6 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (1 << 30, "1.07 GB"),
        (10**18, "1000 PB"),
    ],
)
def test_size(count: int, shown: str) -> None:
    assert text.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, ""),
        (0, "0.00s"),
        (0.42, "0.42s"),
        (0.996, "1.0s"),
        (12.3, "12s"),
        (59.6, "1m00s"),
        (185, "3m05s"),
        (7620, "2h07m"),
        (273600, "3d04h"),
    ],
)
def test_duration(seconds: float | None, shown: str) -> None:
    assert text.duration(seconds) == shown


@pytest.mark.parametrize(
    ("created", "shown"),
    [
        ("2020-01-01T23:59:55Z", "5s"),
        ("2020-01-01T23:48:00+00:00", "12m"),
        ("2020-01-01T00:00:00Z", "1d"),
        ("2021-01-01T00:00:00Z", "0s"),
        (None, ""),
        ("yesterday", ""),
    ],
)
def test_age(created: str | None, shown: str) -> None:
    assert text.age(created, NOW) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.1, "0.1"),
        (1.0, "1.0"),
        (0.123456789, "0.123457"),
        (1e-9, "1e-09"),
        (3, "3"),
        (True, "true"),
        (None, ""),
        ("rbf", "rbf"),
        (1e20, "1e+20"),
        (float("inf"), "inf"),
    ],
)
def test_number(value: object, shown: str) -> None:
    assert text.number(value) == shown


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert text.printable("a\x1b[31m\tb\r") == "a\\x1b[31m\tb\\x0d"
    assert text.printable("größe") == "größe"


@given(st.lists(st.text("a\t\x1b\x00\r\x7f\x9bé\u202e\u200b😀\ue000", max_size=8)))
@example(["plain"])
@example(["".join(map(chr, range(0xE000, 0xE100)))])
def test_many_lines_are_printable_as_each_is(lines: list[str]) -> None:
    said = "".join(line + "\n" for line in lines)
    expected = "".join(text.printable(line) + "\n" for line in lines)
    assert text.printable_lines(said.encode()) == expected.encode()


def test_pause_grows_with_what_was_waited() -> None:
    assert pause(0, 0) == 0.02
    assert pause(2, 0.001) == 0.1
    assert pause(1000, 0) == 0.5
    assert pause(0, 0.3) == 0.3


def test_only_success_is_zero() -> None:
    assert [exit_code(state) for state in ("success", "partial", "failed", "killed")] == [0, 1, 1, 1]
