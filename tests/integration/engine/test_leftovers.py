"""What user code leaves behind stops no engine, and what it changes behind the engine's back is noticed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pachyderm_sdk.api import pps

from tests.integration.engine.conftest import Engine, EngineProcess

NEST = 'python3 -c \'import os; [(os.mkdir("d"), os.chdir("d")) for _ in range(1100)]\''


def test_an_output_that_is_too_deep_fails_its_trial_by_name(engine_process: EngineProcess) -> None:
    engine = engine_process.start()
    engine.repo("a", {"x": b"x"})
    engine.pipeline("p", f"echo 1 >> $SIDE/runs; cd $OUT; {NEST}; cd $TMPDIR; {NEST}", {"a": "/"})
    job = engine.wait("p")
    assert job.state == pps.JobState.JOB_FAILURE
    assert engine.runs() == ["1"]
    datum = next(iter(engine.client.pps.list_datum(job=job.job)))
    said = [line.message for line in engine.client.pps.get_logs(job=job.job, datum=datum.datum)]
    assert any("output refused: /d/d/" in line and "nested more than" in line for line in said)
    assert engine_process.stop() == 0
    engine = engine_process.start()
    assert engine.last_job("p").state == pps.JobState.JOB_FAILURE
    scratch = engine_process.home / "engine" / "scratch"
    assert [path for kind in scratch.iterdir() for path in kind.iterdir()] == []


@pytest.mark.parametrize("make", ["touch", "ln -s /etc"])
def test_a_name_that_is_no_text_fails_its_trial_by_name(engine: Engine, make: str) -> None:
    engine.repo("a", {"x": b"x"})
    engine.pipeline("p", f"{make} \"$OUT/$(printf 'bad\\377')\"", {"a": "/"})
    job = engine.wait("p")
    assert job.state == pps.JobState.JOB_FAILURE
    datum = next(iter(engine.client.pps.list_datum(job=job.job)))
    said = [line.message for line in engine.client.pps.get_logs(job=job.job, datum=datum.datum)]
    assert any("output refused: " in line and r"/bad\udcff" in line for line in said), said


REWRITE = 'chmod -R u+w "$a"; printf altered > "$a/x"; touch -r "$a/y" "$a/x"'


# What is smaller is written anew for each worker.
LARGE = bytes(300 << 10)


def test_small_inputs_that_a_trial_changed_are_changed_for_no_other(engine: Engine) -> None:
    engine.repo("a", {"x": b"genuine", "y": b"y"})
    for name in ("first", "second"):
        engine.pipeline(name, f"cat $a/x > $OUT/x; {REWRITE}; ln -s $a/x $OUT/link", {"a": "/"})
        assert engine.wait(name).state == pps.JobState.JOB_SUCCESS
        assert engine.files(name) == {"/x": b"genuine", "/link": b"genuine"}


def test_inputs_that_a_trial_changed_are_laid_out_again(engine: Engine) -> None:
    engine.repo("a", {"x": b"genuine", "y": LARGE})
    engine.pipeline("first", f"cat $a/x > $OUT/x; {REWRITE}", {"a": "/"})
    assert engine.wait("first").state == pps.JobState.JOB_SUCCESS
    engine.pipeline("second", "cat $a/x > $OUT/x; ls $a > $OUT/names", {"a": "/"})
    assert engine.wait("second").state == pps.JobState.JOB_SUCCESS
    assert engine.files("second") == {"/x": b"genuine", "/names": b"x\ny\n"}


def test_inputs_that_were_changed_while_the_engine_was_down(engine_process: EngineProcess) -> None:
    engine = engine_process.start()
    engine.repo("a", {"x": b"genuine", "y": LARGE})
    engine.pipeline("first", "cat $a/x > $OUT/x; realpath $a > $SIDE/tree", {"a": "/"})
    assert engine.wait("first").state == pps.JobState.JOB_SUCCESS
    engine_process.stop()
    [tree] = engine.runs("tree")
    os.chmod(f"{tree}/x", 0o644)  # noqa: PTH101
    Path(tree, "x").write_bytes(b"altered")
    engine = engine_process.start()
    engine.pipeline("second", "cat $a/x > $OUT/x; realpath $a > $SIDE/tree2", {"a": "/"})
    assert engine.wait("second").state == pps.JobState.JOB_SUCCESS
    assert engine.files("second") == {"/x": b"genuine"}
    assert engine.runs("tree2") != [tree]
    assert not Path(tree).exists()


def test_inputs_that_nobody_changed_stay(engine: Engine) -> None:
    engine.repo("a", {"x": LARGE})
    for name in ("first", "second"):
        engine.pipeline(name, 'stat -c %i "$a/x" >> $SIDE/inodes', {"a": "/"})
        assert engine.wait(name).state == pps.JobState.JOB_SUCCESS
    first, second = engine.runs("inodes")
    assert first == second
