from __future__ import annotations

from pathlib import Path

from kaos_backend.engine.jobs.run.logs import Line, Tail, append, parse_line
from kaos_backend.engine.jobs.run.scratch import remove_tree


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


def test_damaged_lines_are_still_shown() -> None:
    assert parse_line(b"garbage") == Line(0, True, "garbage")
    assert parse_line(b"12 u ") == Line(12, True, "")
    assert parse_line(b"12 u a b") == Line(12, True, "a b")


def test_scratch_goes_whatever_user_code_made_of_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    scratch = tmp_path / "scratch"
    inner = scratch / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    (scratch / "link").symlink_to(outside)
    inner.chmod(0o500)
    (scratch / "a").chmod(0)
    remove_tree(scratch)
    remove_tree(scratch)
    assert not scratch.exists()
    assert (outside / "kept").exists()
