from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos_backend.engine.jobs.run.logs import Line, Tail, append, parse_line


def test_a_tail_gives_whole_lines_once_and_the_rest_at_the_end(tmp_path: Path) -> None:
    log = tmp_path / "deep" / "x.log"
    tail = Tail(log)
    assert list(tail.read()) == []
    append(log, 5, "one\ntwo")
    with log.open("ab") as file:
        file.write(b"7 u thr")
    assert list(tail.read()) == [Line(5, False, "one"), Line(5, False, "two")]
    with log.open("ab") as file:
        file.write("ee ü\n8 u four".encode())
    assert list(tail.read()) == [Line(7, True, "three ü")]
    assert list(tail.read(whole=True)) == [Line(8, True, "four")]
    assert list(tail.read(whole=True)) == []


@given(
    lines=st.lists(st.sampled_from(["", "x", "y" * 50_000]), max_size=12),
    ended=st.booleans(),
    count=st.integers(1, 14),
    whole=st.booleans(),
)
def test_the_last_lines_are_the_end_of_all_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], ended: bool, count: int, whole: bool
) -> None:
    log = tmp_path_factory.mktemp("tail") / "x.log"
    text = "\n".join(f"{i} u {line}" for i, line in enumerate(lines))
    log.write_text(text + "\n" if ended and lines else text)
    every, tail = Tail(log), Tail(log)
    tail.skip_to_last(count, whole)
    assert list(tail.read(whole)) == list(every.read(whole))[-count:]


def test_the_end_of_a_log_is_found_without_reading_it_all(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with log.open("wb") as file:
        # A hole: to read it through would take minutes and 64 GiB.
        file.truncate(64 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n5 u one\n6 u two\n")
    tail = Tail(log)
    tail.skip_to_last(2)
    assert [line.text for line in tail.read()] == ["one", "two"]


def test_damaged_lines_are_still_shown() -> None:
    assert parse_line(b"garbage") == Line(0, True, "garbage")
    assert parse_line(b"12 u ") == Line(12, True, "")
    assert parse_line(b"12 u a b") == Line(12, True, "a b")
