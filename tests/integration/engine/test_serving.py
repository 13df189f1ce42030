"""Services and spouts on this machine: ports, replacement, commits of code, kill -9."""

from __future__ import annotations

import socket
import sys
import urllib.error
import urllib.request
from contextlib import closing

import psutil
import pytest
from pachyderm_sdk.api import pfs, pps

from tests.integration.engine.conftest import Engine, EngineProcess
from tests.support.waiting import eventually

RUNNING, SUCCESS = pps.JobState.JOB_RUNNING, pps.JobState.JOB_SUCCESS
# Serves the folder of its input, as http.server does.
SERVE = 'echo $$ >> "$SIDE/begun"; cd "${data%/}"; exec "$PYTHON" -m http.server --bind 127.0.0.1 "$PORT"'
# Commits a file, then waits to be ended.
SPOUT = """
import os, time
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs
client = Client.new_in_cluster()
branch = pfs.Branch.from_uri(os.environ["PPS_PIPELINE_NAME"] + "@master")
with client.pfs.commit(branch=branch) as commit:
    commit.put_file_from_bytes("/seen", b"something")
print("committed", flush=True)
time.sleep(600)
"""


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def service(engine: Engine, internal: int, external: int, **more: object) -> pps.Pipeline:
    pipeline = pps.Pipeline(name="s", project=pfs.Project(name="default"))
    engine.client.pps.create_pipeline(
        pipeline=pipeline,
        transform=pps.Transform(
            cmd=["sh"],
            stdin=[SERVE],
            env={"SIDE": str(engine.side), "PYTHON": sys.executable, "PORT": str(internal)},
        ),
        input=pps.Input(pfs=pps.PfsInput(repo="data", glob="/")),
        service=pps.Service(internal_port=internal, external_port=external),
        **more,
    )
    return pipeline


def page(port: int, name: str) -> bytes | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}", timeout=5) as answer:
            return bytes(answer.read())
    except (urllib.error.URLError, OSError):
        return None


@pytest.fixture
def ports() -> tuple[int, int]:
    return free_port(), free_port()


def test_a_service_and_the_one_after_it(engine: Engine, ports: tuple[int, int]) -> None:
    engine.repo("data", {"/a": b"first"})
    pipeline = service(engine, *ports)
    assert eventually(lambda: page(ports[1], "a"), "the service answers") == b"first"
    info = engine.client.pps.inspect_pipeline(pipeline=pipeline, details=True)
    assert info.type == pps.PipelineInfoPipelineType.PIPELINE_TYPE_SERVICE
    assert (info.details.service.ip, info.details.service.external_port) == ("127.0.0.1", ports[1])
    first = engine.last_job("s")
    assert first.state == RUNNING
    engine.put("data", {"/a": b"second"})
    eventually(lambda: page(ports[1], "a") == b"second", "the next one answers")
    assert engine.wait("s", first.job.id).state == SUCCESS
    assert engine.last_job("s").state == RUNNING
    assert len(engine.runs("begun")) == 2
    engine.client.pps.stop_pipeline(pipeline=pipeline)
    eventually(lambda: page(ports[1], "a") is None, "nothing answers any more")


def test_a_port_that_is_the_code_s_own(engine: Engine, ports: tuple[int, int]) -> None:
    engine.repo("data", {"/a": b"first"})
    service(engine, ports[0], 0)
    assert eventually(lambda: page(ports[0], "a"), "the service answers") == b"first"


def test_a_port_that_somebody_has(engine: Engine, ports: tuple[int, int]) -> None:
    engine.repo("data", {"/a": b"first"})
    with closing(socket.create_server(("127.0.0.1", ports[1]))):
        service(engine, *ports)
        eventually(lambda: f"port {ports[1]}" in engine.last_job("s").reason, "the job says so")
    assert eventually(lambda: page(ports[1], "a"), "it goes on when the port is free") == b"first"


def test_both_outlive_a_crash_of_the_engine(engine_process: EngineProcess, ports: tuple[int, int]) -> None:
    engine = engine_process.start()
    engine.repo("data", {"/a": b"first"})
    # What runs for ever keeps its share of the machine.
    share = pps.ResourceSpec(cpu=0.5)
    service(engine, *ports, resource_requests=share)
    pipeline = pps.Pipeline(name="news", project=pfs.Project(name="default"))
    transform = pps.Transform(cmd=[sys.executable, "-c", SPOUT])
    # The SDK sends nothing at all for an empty Spout.
    spout = pps.Spout(service=pps.Service())
    engine.client.pps.create_pipeline(
        pipeline=pipeline, transform=transform, spout=spout, resource_requests=share
    )
    engine.pipeline("after", "cp $news $OUT/", {"news": "/*"})
    eventually(lambda: engine.files("news") == {"/seen": b"something"}, "the spout commits")
    eventually(lambda: engine.files("after") == {"/seen": b"something"}, "what reads it goes on")
    assert engine.last_job("news") is None
    eventually(
        lambda: "committed" in [line.message for line in engine.client.pps.get_logs(pipeline=pipeline)],
        "its logs are there",
    )
    eventually(lambda: page(ports[1], "a"), "the service answers")
    job = engine.last_job("s").job

    def commits() -> int:
        repo = pfs.Repo.from_uri("news")
        return len([one for one in engine.client.pfs.list_commit(repo=repo) if one.origin.kind == 1])

    before = commits()
    engine_process.kill()
    engine = engine_process.start()
    assert eventually(lambda: page(ports[1], "a"), "the service answers again") == b"first"
    found = engine.last_job("s")
    assert (found.job.id, found.state, found.restart) == (job.id, RUNNING, 1)
    eventually(lambda: commits() > before, "the spout runs again")
    engine.client.pps.stop_pipeline(pipeline=pipeline)
    eventually(lambda: not spouts_of(engine_process), "its command ends")
    engine.client.pps.start_pipeline(pipeline=pipeline)
    eventually(lambda: spouts_of(engine_process), "it runs again once it is started")
    engine.client.pps.delete_pipeline(pipeline=pipeline, force=True)
    eventually(lambda: not spouts_of(engine_process), "its command ends with the pipeline")
    assert not engine.client.pfs.repo_exists(pfs.Repo.from_uri("news"))


def spouts_of(process: EngineProcess) -> list[str]:
    """The command lines of the spouts that run below an engine."""
    assert process.process is not None
    found = []
    for child in psutil.Process(process.process.pid).children(recursive=True):
        try:
            line = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if "new_in_cluster" in line:
            found.append(line)
    return found
