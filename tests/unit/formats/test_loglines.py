from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kaos_formats import loglines
from kaos_formats.loglines import Line, encode, lines, parse

TEXT = st.text("ab1 é\\\r\x1b", max_size=20)
SAID = st.builds(Line, st.integers(0, 10**16 - 1), st.booleans(), TEXT)
BLOCK = st.lists(SAID, max_size=12)


def block_of(said: list[Line]) -> bytes:
    return b"".join(map(encode, said))


def test_damaged_lines_are_still_shown() -> None:
    assert parse(b"garbage") == Line(0, True, "garbage")
    assert parse(b"12 u ") == Line(12, True, "")
    assert parse(b"12 u a b") == Line(12, True, "a b")
    assert parse(b"9" * 400 + b" u x").ts_us == 0
    assert loglines.time_of(parse(b"9" * 16 + b" u x")) is not None


@given(BLOCK)
def test_what_is_written_is_read(said: list[Line]) -> None:
    block = block_of(said)
    assert list(lines(block)) == said
    assert b"".join(loglines.split(block)) == block


@given(BLOCK, st.sampled_from([b"", b"trial 3 | ", b"\\1 | "]))
def test_the_texts_of_a_block_are_those_of_its_lines(said: list[Line], prefix: bytes) -> None:
    expected = b"".join(prefix + line.text.encode() + b"\n" for line in said)
    assert loglines.texts(block_of(said), prefix) == expected


@given(st.lists(st.sampled_from([b"1 u a\n", b"2 u 3 s b\n", b"damaged\n", b"\n", b"4 x \n"])))
def test_the_texts_of_damaged_lines_are_the_lines(raw: list[bytes]) -> None:
    block = b"".join(raw)
    for prefix in (b"", b"> "):
        expected = b"".join(prefix + line.text.encode() + b"\n" for line in lines(block))
        assert loglines.texts(block, prefix) == expected


@given(BLOCK, st.integers(1, 15))
@example([Line(1, True, "")], 1)
def test_the_last_lines_of_a_block(said: list[Line], count: int) -> None:
    assert list(lines(loglines.last(block_of(said), count))) == said[-count:]


@given(BLOCK)
def test_a_block_is_sifted_by_its_lines(said: list[Line]) -> None:
    found = loglines.only(block_of(said), lambda line: line.user)
    assert list(lines(found)) == [line for line in said if line.user]


@pytest.mark.parametrize("us", [1, 1_893_456_000_000_001])
def test_times(us: int) -> None:
    from datetime import datetime

    told = loglines.time_of(Line(us, True, ""))
    assert told is not None
    assert loglines.microseconds(datetime.fromisoformat(told)) == us
    assert loglines.time_of(Line(0, True, "")) is None
