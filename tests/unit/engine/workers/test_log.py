"""What a launcher makes of the bytes that a command prints."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos_backend.engine.workers.log import LONGEST_LINE, Log
from kaos_formats.loglines import lines

HOSTILE = st.binary(max_size=12) | st.sampled_from(
    [b"\n", b"\r", b"\r\n", "ü€😀".encode(), b"\xff\x00", b"10%\r20%\r", b"1 u x\n"]
)


def logged(path: Path, chunks: list[bytes]) -> list[str]:
    log = Log(str(path))
    for chunk in chunks:
        log.feed(chunk)
    log.close()
    found = list(lines(path.read_bytes()))
    assert all(line.user and line.ts_us > 0 for line in found)
    return [line.text for line in found]


def shown(line: bytes) -> str:
    return line.removesuffix(b"\r").rpartition(b"\r")[2].decode(errors="replace")


@given(st.lists(HOSTILE, max_size=12))
def test_the_lines_are_those_of_all_that_was_printed(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]
) -> None:
    *whole, rest = b"".join(chunks).split(b"\n")
    expected = [shown(line) for line in whole + [rest] * bool(rest)]
    assert logged(tmp_path_factory.mktemp("log") / "x.log", chunks) == expected


def test_a_line_without_end_is_cut_between_characters(tmp_path: Path) -> None:
    text = "😀é" * 50_000
    data = b"x" + text.encode()
    found = logged(tmp_path / "x.log", [data[at : at + 4096] for at in range(0, len(data), 4096)])
    assert "".join(found) == "x" + text
    assert max(len(line.encode()) for line in found) <= LONGEST_LINE
