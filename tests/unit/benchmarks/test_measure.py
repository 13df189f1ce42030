"""The benchmark's own arithmetic, and that it does not time a command that failed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.measure import BenchError, Timing, alternate, clean_env, compare, seconds, timed
from bench.places import Run
from bench.report import table


def test_a_timing_shows_the_median_and_the_range() -> None:
    assert str(Timing((0.3, 0.1, 2.0))) == "0.3 s [0.1 s-2 s]"
    assert str(Timing((1.234,))) == "1.23 s"
    assert seconds(0.01234) == "12.3 ms"


@pytest.mark.parametrize(("kaos", "met"), [(0.49, True), (0.5, False)])
def test_an_aim_is_met_only_below_it(kaos: float, met: bool) -> None:
    row = compare("b", "no-op", Timing((kaos,)), "dvc", Timing((1.0,)), below=0.5)
    assert row.met is met
    assert row.ratio == f"{kaos:.2f}×"
    assert ("**missed**" in table([row])) is not met


def test_what_has_no_aim_is_no_miss() -> None:
    assert compare("b", "no-op", Timing((9.0,)), "python", Timing((1.0,))).met is None


def test_a_failing_command_is_not_timed() -> None:
    with pytest.raises(BenchError, match=r"(?s)exit code 3.*broken"):
        timed([sys.executable, "-c", "import sys; print('broken'); sys.exit(3)"])


def test_alternating_leaves_the_first_round_out(tmp_path: Path) -> None:
    count = tmp_path / "count"
    code = f"open({str(count)!r}, 'a').write('x')"
    timings = alternate({"one": ([sys.executable, "-S", "-c", code], None, clean_env())}, n=2)
    assert len(timings["one"].samples) == 2
    assert count.read_text() == "xxx"


def test_what_steers_the_measured_programs_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAOS_HOME", "/elsewhere")
    monkeypatch.setenv("DVC_ROOT", "/elsewhere")
    env = clean_env({"KAOS_HOME": "/here"})
    assert env["KAOS_HOME"] == "/here"
    assert "DVC_ROOT" not in env


def test_every_folder_of_a_run_is_new(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", quick=True)
    assert run.fresh("cp") != run.fresh("cp")
    run.sweep(big=False)
    assert not run.root.exists()
