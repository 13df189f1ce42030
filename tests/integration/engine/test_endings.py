"""How jobs end when they do not succeed, and what is kept then."""

from __future__ import annotations

import os
import sqlite3

import grpc
import pytest
from pachyderm_sdk.api import pfs, pps

from kaos_backend.engine.jobs.run import recorder
from tests.integration.engine.conftest import Engine, EngineProcess
from tests.support.waiting import eventually

# Fails on /bad while $SIDE/broken exists.
PICKY = """
echo $(basename $a) >> $SIDE/runs
if [ $(basename $a) = bad ] && [ -e $SIDE/broken ]; then echo half > $OUT/half; exit 7; fi
cat $a > $OUT/$(basename $a)
"""
# Says that it runs, then waits until the test lets it go on.
PATIENT = """
echo $(basename $a) >> $SIDE/runs
touch $SIDE/running
while [ ! -e $SIDE/go ]; do sleep 0.02; done
cat $a > $OUT/$(basename $a)
"""
FILES = {"/good": b"good", "/bad": b"bad", "/fine": b"fine"}


def broken(engine: Engine) -> None:
    (engine.side / "broken").touch()


def test_with_err_cmd_the_rest_lands_and_the_failed_one_is_tried_again(engine: Engine) -> None:
    engine.repo("a", FILES)
    broken(engine)
    pipeline = engine.pipeline("p", PICKY, {"a": "/*"}, err=True)
    job = engine.wait("p")
    assert job.state == pps.JobState.JOB_SUCCESS
    assert (job.data_processed, job.data_recovered, job.data_failed) == (2, 1, 0)
    assert set(engine.files("p")) == {"/good", "/fine"}
    (datum,) = engine.client.pps.list_datum(
        job=job.job, filter=pps.ListDatumRequestFilter(state=[pps.DatumState.RECOVERED])
    )
    lines = engine.client.pps.get_logs(pipeline=pipeline, job=job.job, datum=datum.datum)
    assert "datum failed: exit code 7" in [m.message for m in lines if not m.user]
    # What it left is kept where pachd keeps it.
    meta = pfs.Commit(repo=pfs.Repo(name="p", type="meta"), id=job.job.id)
    with engine.client.pfs.pfs_file(pfs.File(commit=meta, path=f"{datum.pfs_state.path}/out/half")) as file:
        assert file.read() == b"half\n"
    (engine.side / "broken").unlink()
    engine.client.pps.rerun_pipeline(pipeline=pipeline)
    job = engine.wait("p")
    assert (job.data_processed, job.data_skipped, job.data_recovered) == (1, 2, 0)
    assert engine.runs() == ["bad", "bad", "fine", "good"]


def test_without_err_cmd_the_job_fails_and_the_next_one_reuses_the_good_outputs(engine: Engine) -> None:
    engine.repo("a", FILES)
    broken(engine)
    pipeline = engine.pipeline("p", PICKY, {"a": "/*"}, datum_tries=2)
    job = engine.wait("p")
    assert job.state == pps.JobState.JOB_FAILURE
    assert job.reason.startswith("datum ")
    assert (job.data_processed, job.data_failed) == (2, 1)
    assert engine.runs() == ["bad", "bad", "fine", "good"]
    # Errored, but readable by its id.
    assert set(engine.files("p", job.job.id)) == {"/good", "/fine"}
    (engine.side / "broken").unlink()
    engine.client.pps.rerun_pipeline(pipeline=pipeline)
    job = engine.wait("p")
    assert (job.data_processed, job.data_skipped) == (1, 2)
    assert engine.files("p") == {"/good": b"good", "/fine": b"fine", "/bad": b"bad"}


def test_a_failed_upstream_makes_everything_downstream_unrunnable(engine: Engine) -> None:
    engine.repo("a", FILES)
    broken(engine)
    engine.pipeline("p", PICKY, {"a": "/*"})
    engine.pipeline("q", "true", {"p": "/*"})
    engine.pipeline("r", "true", {"q": "/*"})
    assert engine.wait("p").state == pps.JobState.JOB_FAILURE
    for name, culprit in (("q", "p"), ("r", "q")):
        job = engine.wait(name)
        assert job.state == pps.JobState.JOB_UNRUNNABLE
        assert job.reason.endswith(f": {culprit}")


def test_an_update_kills_and_what_was_finished_stays(engine: Engine) -> None:
    engine.repo("a", {"/1": b"1"})
    engine.pipeline("p", PATIENT, {"a": "/*"})
    first = engine.job_when("p", pps.JobState.JOB_RUNNING)
    engine.ran("running")
    engine.pipeline("p", "cat $a > $OUT/new", {"a": "/*"}, update=True)
    killed = engine.wait("p", first.job.id)
    assert killed.state == pps.JobState.JOB_KILLED
    assert "pipeline was updated" in killed.reason
    assert engine.wait("p").state == pps.JobState.JOB_SUCCESS
    assert engine.files("p") == {"/new": b"1"}


def test_a_killed_job_has_all_that_it_had_finished(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    # What has ended is not shown in the open output at once.
    monkeypatch.setattr(recorder, "_REFRESH_S", 1e9)
    engine.repo("a", {"/1": b"1", "/2": b"2", "/3": b"3"})
    last = "if [ $(basename $a) = 3 ]; then sleep 600; fi; cat $a > $OUT/$(basename $a)"
    engine.pipeline("p", last, {"a": "/*"}, parallelism_spec=pps.ParallelismSpec(constant=2))
    job = eventually(lambda: (j := engine.last_job("p")).data_processed == 2 and j, "two datums are done")
    engine.client.pps.stop_job(job=job.job)
    killed = engine.wait("p")
    assert (killed.state, killed.data_processed) == (pps.JobState.JOB_KILLED, 2)
    assert engine.files("p", job.job.id) == {"/1": b"1", "/2": b"2"}


def test_what_a_killed_job_had_finished_is_not_run_again(engine: Engine) -> None:
    engine.repo("a", {"/1": b"1", "/2": b"2"})
    half = """
    name=$(basename $a)
    echo $name >> $SIDE/runs
    if [ $name = 2 ]; then touch $SIDE/running; while [ ! -e $SIDE/go ]; do sleep 0.02; done; fi
    cat $a > $OUT/$name
    """
    pipeline = engine.pipeline("p", half, {"a": "/*"})
    engine.ran("running")
    job = eventually(lambda: (j := engine.last_job("p")).data_processed == 1 and j, "one datum is done")
    engine.client.pps.stop_job(job=job.job, reason="enough")
    killed = engine.wait("p")
    assert (killed.state, killed.reason) == (pps.JobState.JOB_KILLED, "enough")
    engine.client.pps.stop_job(job=job.job)
    (engine.side / "go").touch()
    engine.client.pps.rerun_pipeline(pipeline=pipeline)
    job = engine.wait("p")
    assert (job.data_processed, job.data_skipped) == (1, 1)
    assert engine.runs() == ["1", "2", "2"]


def test_a_stopped_pipeline_starts_nothing_until_it_is_started(engine: Engine) -> None:
    engine.repo("a", {"/1": b"1"})
    pipeline = engine.pipeline("p", PATIENT, {"a": "/*"})
    engine.ran("running")
    engine.client.pps.stop_pipeline(pipeline=pipeline)
    info = engine.client.pps.inspect_pipeline(pipeline=pipeline)
    assert info.stopped
    assert info.state == pps.PipelineState.PIPELINE_PAUSED
    assert engine.wait("p").state == pps.JobState.JOB_KILLED
    engine.put("a", {"/2": b"2"})
    assert len(list(engine.client.pps.list_job(pipeline=pipeline))) == 1
    (engine.side / "go").touch()
    engine.client.pps.start_pipeline(pipeline=pipeline)
    assert engine.wait("p").data_processed == 2
    assert set(engine.files("p")) == {"/1", "/2"}


def test_a_datum_over_its_time_fails_by_that_name(engine: Engine) -> None:
    from datetime import timedelta

    engine.repo("a", {"/1": b"1"})
    pipeline = engine.pipeline("p", PATIENT, {"a": "/*"}, err=True, datum_timeout=timedelta(seconds=0.3))
    job = engine.wait("p")
    # As pachd has it: what ran out of time has no time for err_cmd.
    assert job.state == pps.JobState.JOB_FAILURE
    messages = [m.message for m in engine.client.pps.get_logs(pipeline=pipeline, job=job.job)]
    assert "datum failed: timed out after 0.3 s" in messages


def test_a_job_over_its_time_is_killed(engine: Engine) -> None:
    from datetime import timedelta

    engine.repo("a", {"/1": b"1"})
    engine.pipeline("p", PATIENT, {"a": "/*"}, job_timeout=timedelta(seconds=0.4))
    job = engine.wait("p")
    assert (job.state, job.reason) == (pps.JobState.JOB_KILLED, " jobtimed out")


def test_memory_over_the_limit_is_named_and_harms_no_other(engine: Engine) -> None:
    engine.repo("a", {"/1": b"1", "/2": b"2"})
    greedy = """
    if [ $(basename $a) = 1 ]; then python3 -c 'import time; x = bytearray(300 << 20); time.sleep(20)'; fi
    echo ok > $OUT/$(basename $a)
    """
    pipeline = engine.pipeline(
        "p", greedy, {"a": "/*"}, err=True, resource_limits=pps.ResourceSpec(cpu=1, memory="100M")
    )
    job = engine.wait("p")
    assert (job.data_processed, job.data_recovered) == (1, 1)
    messages = [m.message for m in engine.client.pps.get_logs(pipeline=pipeline, job=job.job)]
    assert any(m.startswith("datum failed: out of memory: used ") for m in messages)


@pytest.mark.parametrize("name", ["a*b", "a[0]", "späti"])
def test_an_output_that_cannot_be_held_fails_its_datum(engine: Engine, name: str) -> None:
    engine.repo("a", {"/1": b"1"})
    pipeline = engine.pipeline("p", f'echo x > "$OUT/{name}"', {"a": "/*"})
    job = engine.wait("p")
    assert job.state == pps.JobState.JOB_FAILURE
    messages = [m.message for m in engine.client.pps.get_logs(pipeline=pipeline, job=job.job)]
    assert any(m.startswith("datum failed: output refused: ") for m in messages)


def test_two_datums_that_write_the_same_path_fail_the_job(engine: Engine) -> None:
    engine.repo("a", {"/1": b"1", "/2": b"2"})
    engine.pipeline("p", "cat $a > $OUT/same", {"a": "/*"})
    job = engine.wait("p")
    assert job.state == pps.JobState.JOB_FAILURE
    assert "duplicate path output by different datums" in job.reason


def test_what_can_never_fit_is_refused(engine: Engine) -> None:
    engine.repo("a")
    with pytest.raises(grpc.RpcError, match="asks for 64 cpu but this machine has 2") as refused:
        engine.pipeline("p", "true", {"a": "/*"}, resource_limits=pps.ResourceSpec(cpu=64))
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert not engine.client.pfs.repo_exists(pfs.Repo(name="p", type="user"))


def test_without_a_command_the_pipeline_says_so(engine: Engine) -> None:
    engine.repo("a", {"/1": b"1"})
    pipeline = pps.Pipeline(name="p")
    engine.client.pps.create_pipeline(
        pipeline=pipeline, transform=pps.Transform(), input=pps.Input(pfs=pps.PfsInput(repo="a", glob="/"))
    )
    info = engine.client.pps.inspect_pipeline(pipeline=pipeline)
    assert info.state == pps.PipelineState.PIPELINE_FAILURE
    assert info.reason == "nothing to run: no transform.cmd"


def test_a_running_datum_can_be_restarted(engine: Engine) -> None:
    engine.repo("a", {"/1": b"1"})
    engine.pipeline("p", PATIENT, {"a": "/*"})
    engine.ran("running")
    job = engine.last_job("p").job
    with pytest.raises(grpc.RpcError, match=r"datum matching filter \[.*\] could not be found for job ID"):
        engine.client.pps.restart_datum(job=job, data_filters=["/2"])
    info = engine.client.pps.inspect_job(job=job, details=True)
    assert [f.path for s in info.details.worker_status for f in s.datum_status.data] == ["/1"]
    engine.client.pps.restart_datum(job=job, data_filters=["/1"])
    eventually(lambda: engine.runs() == ["1", "1"], "the datum runs again")
    (engine.side / "go").touch()
    assert engine.wait("p").data_processed == 1


def test_dropping_the_commit_set_of_a_running_job_stops_it(engine: Engine) -> None:
    engine.repo("a", {"/0": b"0"})
    (engine.side / "go").touch()
    engine.pipeline("p", PATIENT, {"a": "/*"})
    engine.wait("p")
    (engine.side / "go").unlink()
    (engine.side / "running").unlink()
    id = engine.put("a", {"/1": b"1"})
    engine.ran("running")
    engine.client.pfs.drop_commit_set(commit_set=pfs.CommitSet(id=id))
    job = engine.wait("p", id)
    assert (job.state, job.reason) == (pps.JobState.JOB_KILLED, "output commit removed")
    (engine.side / "go").touch()
    engine.put("a", {"/2": b"2"})
    assert engine.wait("p").state == pps.JobState.JOB_SUCCESS


def test_damaged_inputs_fail_the_datum_by_name(engine: Engine) -> None:
    """And the same content, sent again, is what the next job runs on."""
    body = os.urandom(2 << 20)
    engine.repo("data", {"/d/good": b"good", "/d/bad": body})
    assert engine.handle is not None
    objects = engine.handle.store.objects
    (loose,) = objects.loose.glob("*/*")
    with loose.open("r+b") as file:
        file.write(b"\0" * 16)
    engine.pipeline("read", 'cp -r "$PACH_PFS/data/d" "$OUT"', {"data": "/"})
    job = engine.wait("read")
    assert job.state == pps.JobState.JOB_FAILURE
    datum = next(iter(engine.client.pps.list_datum(job=job.job)))
    assert datum.state == pps.DatumState.FAILED
    assert "datum" in job.reason
    log = "".join(line.message for line in engine.client.pps.get_logs(job=job.job))
    told = log + job.reason
    assert "/d/bad in repo default/data at commit" in told
    assert "is damaged" in told
    with engine.client.pfs.commit(branch=pfs.Branch.from_uri("data@master")) as again:
        again.delete_file(path="/d/bad")
        again.put_file_from_bytes("/d/bad", body)
    assert engine.wait("read").state == pps.JobState.JOB_SUCCESS
    assert engine.files("read")["/d/bad"] == body


def test_a_damaged_listing_ends_the_job_by_name(engine_process: EngineProcess) -> None:
    engine = engine_process.start()
    engine.repo("data", {"/d/a": b"a", "/d/b": b"b"})
    engine_process.kill()
    with sqlite3.connect(engine_process.home / "engine" / "engine.sqlite") as db:
        db.execute("UPDATE trees SET node=zeroblob(length(node))")
    db.close()
    engine = engine_process.start()
    engine.pipeline("read", "true", {"data": "/d/*"})
    job = engine.wait("read")
    assert job.state == pps.JobState.JOB_UNRUNNABLE
    assert "(the listing of a directory) has changed in the database" in job.reason
