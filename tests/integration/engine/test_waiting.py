"""Nothing waits silently: what a job or a datum waits for is its job's reason for as long as it waits."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pachyderm_sdk.api import pps

from tests.integration.engine.conftest import Engine
from tests.support.waiting import eventually

SLOW = """
touch $SIDE/running
while [ ! -e $SIDE/go ]; do sleep 0.02; done
cat $a > $OUT/$(basename $a)
"""


@pytest.fixture
def slow(engine: Engine) -> Engine:
    """Pipeline `p` over repo `a`: runs until `$SIDE/go` is made."""
    engine.repo("a", {"/1": b"1", "/2": b"2", "/3": b"3"})
    engine.pipeline("p", SLOW, {"a": "/*"}, parallelism_spec=pps.ParallelismSpec(constant=3))
    engine.ran("running")
    return engine


def reason(engine: Engine, pipeline: str, text: str) -> pps.JobInfo:
    """The newest job of a pipeline once its reason says `text`."""

    def look() -> pps.JobInfo | None:
        info = engine.last_job(pipeline)
        return info if info is not None and text in info.reason else None

    info: pps.JobInfo = eventually(look, f"{pipeline} says {text!r}")
    return info


def test_datums_that_find_the_machine_full_say_so_and_are_not_called_running(slow: Engine) -> None:
    info = reason(slow, "p", "1 datum waits for 1 cpu (0 of 2 free)")
    detailed = slow.client.pps.inspect_job(job=info.job, details=True)
    assert len(detailed.details.worker_status) == 2, "two cores, two workers"
    (slow.side / "go").touch()
    assert slow.wait("p").reason == ""


def test_who_has_the_machine_is_named(slow: Engine) -> None:
    slow.pipeline("q", "cat $a > $OUT/x", {"a": "/1"})
    held = slow.last_job("p").job.id[:8]
    reason(slow, "q", f"1 datum waits for 1 cpu (0 of 2 free), in use by job {held} of default/p")
    (slow.side / "go").touch()
    assert slow.wait("q").state == pps.JobState.JOB_SUCCESS


def test_room_on_the_disk_that_is_not_there_is_waited_for(engine: Engine) -> None:
    engine.repo("a", {"/1": b"1"})
    # What the disk has, but not free; `requests` of other kinds may be left out.
    disk = shutil.disk_usage(engine.side)
    wanted = str((disk.free + disk.total) // 2)
    engine.pipeline("p", "true", {"a": "/*"}, resource_requests=pps.ResourceSpec(disk=wanted))
    info = reason(engine, "p", " of disk (")
    assert info.reason.startswith("1 datum waits for ")
    engine.client.pps.stop_job(job=info.job)
    assert engine.wait("p").state == pps.JobState.JOB_KILLED


def test_a_job_names_the_one_before_it(slow: Engine) -> None:
    first = slow.last_job("p").job.id
    slow.put("a", {"/4": b"4"})
    info = reason(slow, "p", f"waits for job {first[:8]} of the same pipeline")
    assert info.job.id != first
    (slow.side / "go").touch()
    assert slow.wait("p").reason == ""


def test_a_job_names_the_input_that_is_not_finished(slow: Engine) -> None:
    slow.pipeline("q", "cp $p $OUT/x", {"p": "/1"})
    reason(slow, "q", "waits for p to finish")
    (slow.side / "go").touch()
    assert slow.wait("q").state == pps.JobState.JOB_SUCCESS


def test_places_of_the_pipeline_itself_are_told_from_those_of_the_machine(engine: Engine) -> None:
    engine.repo("a", {"/1": b"1", "/2": b"2"})
    engine.pipeline("p", SLOW, {"a": "/*"}, parallelism_spec=pps.ParallelismSpec(constant=1))
    reason(engine, "p", "1 datum waits for a place in its pipeline (1 at a time)")
    (engine.side / "go").touch()
    engine.wait("p")


def test_a_job_names_the_image_that_is_not_there(engine: Engine) -> None:
    engine.repo("a", {"/1": b"1"})
    engine.client.pps.create_pipeline(
        pipeline=pps.Pipeline(name="p"),
        transform=pps.Transform(image="kaos/none:1", cmd=["true"]),
        input=pps.Input(pfs=pps.PfsInput(repo="a", glob="/*")),
    )
    reason(engine, "p", "kaos/none:1")


def test_a_listing_says_the_same(slow: Engine, tmp_path: Path) -> None:
    reason(slow, "p", "1 datum waits")
    (info,) = slow.client.pps.list_job(pipeline=pps.Pipeline(name="p"), history=-1)
    assert "1 datum waits" in info.reason
    (slow.side / "go").touch()
    slow.wait("p")
