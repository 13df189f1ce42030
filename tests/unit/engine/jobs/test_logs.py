from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos_backend.engine.jobs.run.logs import Tail, append
from kaos_formats.loglines import Block, Line, lines


def blocks(tail: Tail, whole: bool = False) -> list[Block]:
    return list(tail.blocks(tail.advance(whole)))


def read(tail: Tail, whole: bool = False) -> list[Line]:
    return [line for block in blocks(tail, whole) for line in lines(block.data)]


def test_a_tail_gives_whole_lines_once_and_the_rest_at_the_end(tmp_path: Path) -> None:
    log = tmp_path / "deep" / "x.log"
    tail = Tail(log)
    assert read(tail) == []
    append(log, 5, "one\ntwo")
    with log.open("ab") as file:
        file.write(b"7 u thr")
    assert read(tail) == [Line(5, False, "one"), Line(5, False, "two")]
    with log.open("ab") as file:
        file.write("ee ü\n8 u four".encode())
    assert read(tail) == [Line(7, True, "three ü")]
    assert read(tail, whole=True) == [Line(8, True, "four")]
    assert read(tail, whole=True) == []


@given(
    lines=st.lists(st.sampled_from(["", "x", "y" * 50_000]), max_size=30),
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
    assert read(tail, whole) == read(every, whole)[-count:]


def test_blocks_say_which_bytes_they_are(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    written = b"".join(b"%d u %b\n" % (i, b"x" * 1000) for i in range(1000))
    log.write_bytes(written)
    found = blocks(Tail(log))
    assert b"".join(block.data for block in found) == written
    assert [written[block.at : block.to] for block in found] == [block.data for block in found]
    assert len(found) > 1


def test_what_is_written_while_it_is_read_waits_for_the_next_time(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"1 u x\n" * 100_000)
    tail = Tail(log)
    seen = 0
    for block in tail.blocks(tail.advance()):
        seen += len(block.data)
        with log.open("ab") as file:
            file.write(block.data)  # as fast as it is read
    assert seen == 600_000
    assert len(read(tail)) == 100_000


def test_the_end_of_a_log_is_found_without_reading_it_all(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with log.open("wb") as file:
        # A hole: to read it through would take minutes and 64 GiB.
        file.truncate(64 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n5 u one\n6 u two\n")
    tail = Tail(log)
    tail.skip_to_last(2)
    assert [line.text for line in read(tail)] == ["one", "two"]


def test_a_hole_without_a_line_end_comes_in_pieces(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with log.open("wb") as file:
        file.truncate(5 << 20)
        file.seek(0, os.SEEK_END)
        file.write(b"\n5 u one\n")
    pieces = blocks(Tail(log))
    assert max(len(block.data) for block in pieces) < 1 << 20
    found = [line for block in pieces for line in lines(block.data)]
    assert found[-1] == Line(5, True, "one")
    assert sum(len(line.text) for line in found[:-1]) == 5 << 20
