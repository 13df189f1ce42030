"""kill -9 of the engine anywhere in a grid: what was finished is not run again, what was interrupted is."""

from __future__ import annotations

import json
import os
import signal
from functools import partial

import psutil
import pytest
from pachyderm_sdk.api import pfs, pps

from kaos_formats.endings import Code, code_of
from tests.integration.engine.conftest import Engine, EngineProcess
from tests.support.home import alive
from tests.support.waiting import eventually

POINTS = 6
EARLY_KILLS = 6
# Every run leaves a line when it begins and one when it ends; datum `stop` waits for the test.
TRIAL = """
name=$(basename $hyper)
echo $name >> $SIDE/begun
if [ ! -e $SIDE/go ] && [ $(wc -l < $SIDE/begun) -gt $(cat $SIDE/quota) ]; then
  echo $$ >> $SIDE/pids; touch $SIDE/waiting; while [ ! -e $SIDE/go ]; do sleep 0.02; done
fi
cat $hyper > $OUT/$name
echo $name >> $SIDE/ended
"""


def grid(engine: Engine, quota: int) -> None:
    (engine.side / "quota").write_text(str(quota))
    engine.repo("hyper", {f"/{i}": str(i).encode() for i in range(POINTS)})
    engine.pipeline("train", TRIAL, {"hyper": "/*"}, err=True)


def check_result(engine: Engine) -> None:
    job = engine.wait("train")
    assert job.state == pps.JobState.JOB_SUCCESS, job.reason
    assert (job.data_total, job.data_processed) == (POINTS, POINTS)
    assert engine.files("train") == {f"/{i}": str(i).encode() for i in range(POINTS)}


@pytest.mark.parametrize("quota", range(POINTS))
def test_killed_while_a_trial_runs(engine_process: EngineProcess, quota: int) -> None:
    engine = engine_process.start()
    grid(engine, quota)
    engine.ran("waiting")
    done = eventually(
        lambda: (j := engine.last_job("train")).data_processed >= max(0, quota - 1) and j,
        "earlier trials are stored",
    ).data_processed
    finished = {
        d.data[0].file.path[1:] for d in engine.client.pps.list_datum(job=engine.last_job("train").job)
    }
    engine_process.kill()
    pids = [int(p) for p in engine.runs("pids")]
    eventually(lambda: not any(alive(pid) for pid in pids), "the trials die with the engine")
    (engine.side / "go").touch()
    engine = engine_process.start()
    check_result(engine)
    begun = engine.runs("begun")
    assert len(finished) >= done
    for name in map(str, range(POINTS)):
        if name in finished:
            assert begun.count(name) == 1, f"trial {name} was stored before the crash and ran again"
    # At most what was in flight (two workers, and two that were being stored) is run a second time.
    assert max(begun.count(n) for n in set(begun)) <= 2
    assert len(begun) <= POINTS + 2 + 2
    assert engine.last_job("train").restart == 1


def test_killed_again_and_again_at_any_moment(engine_process: EngineProcess) -> None:
    """The engine dies as soon as it is there, then after every few transactions; acknowledged commits and
    finished trials stay.
    """
    engine = engine_process.start()
    grid(engine, 10_000)
    stored: set[str] = set()
    for kills in range(40):
        job = engine.last_job("train")
        now = {d.data[0].file.path[1:] for d in engine.client.pps.list_datum(job=job.job)}
        assert stored <= now, "a stored trial vanished"
        stored = now
        if job.state == pps.JobState.JOB_SUCCESS:
            break
        # Whoever begins or ends has been through a transaction or two since.
        seen = len(engine.runs("begun")) + len(engine.runs("ended"))
        if kills >= EARLY_KILLS:
            eventually(partial(_goes_on, engine, seen), "a trial begins or ends")
        engine_process.kill()
        engine = engine_process.start()
    check_result(engine)
    assert engine.client.pfs.commit_exists(pfs.Commit.from_uri("hyper@master"))
    assert len(list(engine.client.pps.list_job(pipeline=pps.Pipeline(name="train"), history=-1))) == 1


def _goes_on(engine: Engine, seen: int) -> bool:
    return (
        len(engine.runs("begun")) + len(engine.runs("ended")) > seen
        or engine.last_job("train").state == pps.JobState.JOB_SUCCESS
    )


def _ended_at_least(engine: Engine, count: int) -> bool:
    return len(engine.runs("ended")) >= count


def test_killed_just_as_trials_end(engine_process: EngineProcess) -> None:
    """The moments around a trial's end: its output is being stored, or its row is being written."""
    engine = engine_process.start()
    grid(engine, 10_000)
    for ended in range(1, POINTS + 1):
        enough = partial(_ended_at_least, engine, ended)
        eventually(enough, f"{ended} ends")
        engine_process.kill()
        engine = engine_process.start()
    check_result(engine)
    # Each kill can cost what two workers had in hand and what was not stored yet, and no more.
    assert len(engine.runs("begun")) <= POINTS + POINTS * 4


def test_a_worker_that_is_killed_under_a_grid_costs_one_run(engine: Engine) -> None:
    grid(engine, 1)
    engine.ran("waiting")
    # One that waits, whose parent is its worker's launcher.
    trial = engine.runs("pids")[0]
    os.kill(psutil.Process(int(trial)).ppid(), signal.SIGKILL)
    eventually(lambda: not alive(int(trial)), "the trial dies with its worker")
    (engine.side / "go").touch()
    check_result(engine)
    begun = engine.runs("begun")
    assert (len(begun), len(set(begun))) == (POINTS + 1, POINTS)
    job = engine.last_job("train")
    said = [m.message for m in engine.client.pps.get_logs(pipeline=pps.Pipeline(name="train"), job=job.job)]
    assert sum(line.startswith("worker lost, the datum is run again: ") for line in said) == 1


def test_a_trial_that_takes_every_worker_with_it_ends_by_that_name(engine: Engine) -> None:
    engine.repo("hyper", {"/1": b"1"})
    engine.pipeline("train", "echo x >> $SIDE/begun; kill -9 $PPID; sleep 60", {"hyper": "/*"})
    job = engine.wait("train")
    assert job.state == pps.JobState.JOB_FAILURE
    assert code_of(job.reason) == Code.WORKER_LOST, job.reason
    assert len(engine.runs("begun")) == 4


def test_a_job_whose_input_is_open_survives(engine_process: EngineProcess) -> None:
    engine = engine_process.start()
    (engine.side / "go").touch()
    engine.repo("hyper")
    engine.pipeline("train", "cat $hyper > $OUT/x", {"hyper": "/*"})
    engine.wait("train")
    commit = engine.client.pfs.start_commit(branch=pfs.Branch.from_uri("hyper@master"))
    engine_process.kill()
    engine = engine_process.start()
    where = pfs.Commit.from_uri(f"hyper@{commit.id}")
    add = pfs.ModifyFileRequest(add_file=pfs.AddFile(path="/f", raw=b"1"))
    engine.client.pfs.modify_file(iter([pfs.ModifyFileRequest(set_commit=where), add]))
    engine.client.pfs.finish_commit(commit=where)
    assert engine.wait("train", commit.id).data_processed == 1


def test_a_clean_stop_interrupts_and_the_next_start_goes_on(engine_process: EngineProcess) -> None:
    engine = engine_process.start()
    grid(engine, 2)
    engine.ran("waiting")
    assert engine_process.stop() == 0
    pids = [int(p) for p in engine.runs("pids")]
    assert not any(alive(pid) for pid in pids)
    (engine.side / "go").touch()
    engine = engine_process.start()
    check_result(engine)


def test_one_engine_per_home_and_the_port_is_kept(engine_process: EngineProcess) -> None:
    engine_process.start()
    second = EngineProcess(engine_process.home)
    assert second.run_to_end() == 3
    info = json.loads((engine_process.home / "engine.json").read_text())
    engine_process.stop()
    engine_process.start(keep_info=True)
    assert json.loads((engine_process.home / "engine.json").read_text())["port"] == info["port"]
    assert (engine_process.home / "token").stat().st_mode & 0o777 == 0o600
