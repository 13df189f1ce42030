"""What becomes of jobs whose image is gone: they end by name where only another build would help."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from docker.errors import ImageNotFound
from pachyderm_sdk.api import pfs, pps

from kaos_backend.engine.jobs.controller import Controller
from kaos_backend.engine.jobs.db import tables
from kaos_backend.engine.jobs.db.rows import JobKey, PipelineKey
from kaos_backend.engine.jobs.schedule.decide import Do
from kaos_backend.engine.jobs.schedule.states import JobState
from kaos_backend.engine.workers.docker.runtime import DockerRuntime
from kaos_backend.engine.workers.port import Runtime
from kaos_formats.images import directory_name
from tests.integration.engine.conftest import Engine
from tests.support.docker_engine import engine_or_skip
from tests.support.waiting import eventually
from tests.unit.engine.workers.images import FolderImages

IMAGE = "kaos/test:1"
GONE = "image missing: image {} not found: no build made it yet, or it was removed; deploy its source again"
# It takes its worker along.
LAST_OF_ITS_WORKER = """
if [ $(basename $a) = 2 ]; then cat $a > $OUT/2; exit 0; fi
touch $SIDE/running
while [ ! -e $SIDE/go ]; do sleep 0.02; done
kill -9 $PPID; sleep 60
"""


def builder(engine: Engine, image: str, cmd: tuple[str, ...] = ("true",), glob: str = "/none") -> None:
    """A pipeline that makes `image`, or has when there is nothing at `glob` to make it of."""
    engine.client.pps.create_pipeline(
        pipeline=pps.Pipeline(name="b", project=pfs.Project(name="default")),
        transform=pps.Transform(cmd=list(cmd), env={"KAOS_IMAGE": image}),
        input=pps.Input(pfs=pps.PfsInput(repo="a", glob=glob)),
    )


def built(engine: Engine, folder: Path) -> str:
    """An image that a pipeline has made: as after any build somebody mentions it before it is there, for one
    of nobody is what an engine removes when it starts.
    """
    builder(engine, IMAGE)
    engine.wait("b")
    assert FolderImages(folder).make({}, "/", {}) == IMAGE
    return IMAGE


def trainer(engine: Engine, image: str, script: str = "true") -> None:
    transform = pps.Transform(
        cmd=["sh"],
        stdin=['OUT="${PACH_PFS:-/pfs}/out"', *script.strip().splitlines()],
        env={"SIDE": str(engine.side)},
        image=image,
    )
    engine.client.pps.create_pipeline(
        pipeline=pps.Pipeline(name="p", project=pfs.Project(name="default")),
        transform=transform,
        input=pps.Input(pfs=pps.PfsInput(repo="a", glob="/*")),
        datum_tries=1,
        parallelism_spec=pps.ParallelismSpec(constant=2),
    )


def assert_waits(engine: Engine, reason: str) -> None:
    """The newest job waits, and its next step will not end it."""
    job = engine.job_when("p", pps.JobState.JOB_STARTING)
    eventually(lambda: reason in engine.last_job("p").reason, "it says what it waits for")
    assert engine.handle is not None
    with engine.handle.store.read() as db:
        found = tables.get_job(db, JobKey(PipelineKey("default", "p"), job.job.id))
    assert found.state is JobState.STARTING
    assert engine.handle.jobs._controller._step(found).do is Do.CRASH


def removed_folder(folder: Path, image: str) -> None:
    shutil.rmtree(folder / "images" / directory_name(image))


def test_a_job_whose_image_was_made_and_is_gone_ends_by_name_and_so_do_those_behind_it(
    engine: Engine, tmp_path: Path
) -> None:
    engine.repo("a", {"/1": b"1"})
    image = built(engine, tmp_path / "engine")
    trainer(engine, image, "touch $SIDE/running; while [ ! -e $SIDE/go ]; do sleep 0.02; done")
    engine.ran("running")
    for name in ("/2", "/3"):
        engine.put("a", {name: b"x"})
    removed_folder(tmp_path / "engine", image)
    (engine.side / "go").touch()
    jobs = list(engine.client.pps.list_job(pipeline=pps.Pipeline(name="p"), history=-1))
    ends = [engine.wait("p", job.job.id) for job in jobs]
    assert [end.state for end in ends] == [
        pps.JobState.JOB_FAILURE,
        pps.JobState.JOB_FAILURE,
        pps.JobState.JOB_SUCCESS,
    ]
    assert all(end.reason.startswith(GONE.format(image)) for end in ends[:2])
    # The pipeline says so, too: a deploy looks there for what it has to build again.
    info = engine.client.pps.inspect_pipeline(pipeline=pps.Pipeline(name="p"))
    assert info.state == pps.PipelineState.PIPELINE_CRASHING
    assert image in info.reason


def test_a_job_that_runs_ends_when_no_worker_can_start_and_keeps_what_it_has(
    engine: Engine, tmp_path: Path
) -> None:
    engine.repo("a", {"/1": b"1", "/2": b"2"})
    image = built(engine, tmp_path / "engine")
    trainer(engine, image, LAST_OF_ITS_WORKER)
    engine.ran("running")
    eventually(lambda: engine.last_job("p").data_processed == 1, "the other trial is done")
    removed_folder(tmp_path / "engine", image)
    eventually(lambda: _none_idle(engine), "the idle worker is let go")
    (engine.side / "go").touch()
    job = engine.wait("p")
    assert (job.state, job.data_processed) == (pps.JobState.JOB_FAILURE, 1)
    assert job.reason.startswith(GONE.format(image))
    assert engine.files("p", job.job.id) == {"/2": b"2"}


def _none_idle(engine: Engine) -> bool:
    """No worker of the pipeline is idle any more."""
    assert engine.handle is not None
    pools = engine.handle.jobs._controller._pools._pools.values()
    return all(pool.close_idle(float("inf")) == 0 for pool in pools)


@pytest.mark.parametrize("what", ["being_built", "of_nobody"])
def test_an_image_that_may_still_come_is_waited_for(engine: Engine, what: str, tmp_path: Path) -> None:
    engine.repo("a", {"/1": b"1"})
    if what == "being_built":
        until_go = f"while [ ! -e {engine.side}/go ]; do sleep 0.02; done"
        builder(engine, IMAGE, ("sh", "-c", until_go), "/*")
        engine.job_when("b", pps.JobState.JOB_RUNNING)
    trainer(engine, IMAGE)
    assert_waits(engine, f"{IMAGE} not found")
    FolderImages(tmp_path / "engine").make({}, "/", {})
    (engine.side / "go").touch()
    assert engine.wait("p").state == pps.JobState.JOB_SUCCESS


def test_a_pipeline_whose_image_has_come_is_said_to_run_before_the_loop_looks(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever deploys in between would else take the image for lost, and have it built again."""
    engine.repo("a", {"/1": b"1"})
    trainer(engine, IMAGE)
    assert_waits(engine, f"{IMAGE} not found")
    monkeypatch.setattr(Controller, "_wake", lambda *_: False)
    FolderImages(tmp_path / "engine").make({}, "/", {})
    (info,) = engine.client.pps.list_pipeline()
    assert (info.state, info.reason) == (pps.PipelineState.PIPELINE_RUNNING, "")


# --- the same on a Docker engine


def test_in_docker_a_job_ends_by_name_when_the_engine_says_that_it_has_no_such_image(
    engine_on: Callable[[Callable[[], Runtime]], Engine], tmp_path: Path
) -> None:
    with engine_or_skip() as api:
        image = f"kaos/gone-{uuid.uuid4().hex}:1"
        with pytest.raises(ImageNotFound):
            api.inspect_image(image)
    engine = engine_on(partial(DockerRuntime, tmp_path / "engine", os.environ))
    engine.repo("a", {"/1": b"1"})
    builder(engine, image)
    engine.wait("b")
    trainer(engine, image)
    job = engine.wait("p")
    assert job.state == pps.JobState.JOB_FAILURE
    assert job.reason.startswith(GONE.format(image))


@pytest.mark.parametrize("silent", ["engine", "registry"])
def test_in_docker_an_engine_or_a_registry_that_does_not_answer_ends_no_job(
    engine_on: Callable[[Callable[[], Runtime]], Engine], tmp_path: Path, silent: str
) -> None:
    image = f"kaos/gone-{uuid.uuid4().hex}:1"
    env, registry = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}, ""
    if silent == "registry":
        engine_or_skip().close()
        env, registry = dict(os.environ), "127.0.0.1:1/x"
    engine = engine_on(partial(DockerRuntime, tmp_path / "engine", env, registry=registry))
    engine.repo("a", {"/1": b"1"})
    builder(engine, image)
    engine.client.pps.stop_pipeline(pipeline=pps.Pipeline(name="b"))  # which would wait as well
    trainer(engine, image)
    why = {"engine": "no Docker engine answers", "registry": "127.0.0.1:1/x cannot be asked for it"}[silent]
    assert_waits(engine, why)
