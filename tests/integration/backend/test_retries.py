"""Jobs that are run again on their own inputs."""

from __future__ import annotations

import io
import shutil
import socket
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
import zstandard
from pachyderm_sdk.api import pfs

from tests.support.backend import DATA, SOURCE, Backend, repo
from tests.support.waiting import eventually


class Gate:
    """What a trial can find closed or open, from within a sandbox too: a port."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]

    def open(self) -> None:
        self._socket.listen(64)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.close()


def script(gate: Gate, body: str = "") -> bytes:
    """Fails for 0.1 as long as the gate is closed, and leaves half of a model then."""
    return f"""#!/usr/bin/env python3
import json, os, socket, sys, time
out = sys.argv[1]
is_open = socket.socket().connect_ex(("127.0.0.1", {gate.port})) == 0
if json.load(open(os.environ["KAOS_PARAMS"])).get("lr") == 0.1 and not is_open:
    open(out + "/half", "w").write("half")
    sys.exit("closed")
{body}
""".encode()


def retry(backend: Backend, workspace: str, job: str, **body: Any) -> Any:
    return backend.call("POST", f"/workspaces/{workspace}/jobs/{job}/retry", json=body)


def states(job: Any) -> dict[float, str]:
    return {trial["params"]["lr"]: trial["state"] for trial in job["trials"]}


def heads(backend: Backend, workspace: str, *names: str) -> dict[str, str]:
    branches = backend.sdk().pfs.list_branch
    return {name: next(iter(branches(repo=repo(workspace, name)))).head.id for name in names}


def left(backend: Backend, workspace: str, job: str) -> dict[str, bytes]:
    """What failed trials wrote, by the names of the files."""
    path = f"/workspaces/{workspace}/jobs/{job}/archive?what=failed"
    tar = zstandard.ZstdDecompressor().decompressobj().decompress(backend.request("GET", path).content)
    with tarfile.open(fileobj=io.BytesIO(tar)) as members:
        return {m.name.partition("/")[2]: members.extractfile(m).read() for m in members}  # type: ignore[union-attr]


def test_what_failed_runs_again_and_becomes_what_is_current(
    backend: Backend, workspace: str, gate: Gate
) -> None:
    source = backend.put(workspace, "source", {**SOURCE, "train": script(gate)})
    data = backend.put(workspace, "data", DATA)
    first = backend.deploy(workspace, source=source, data=data, hyper={"lr": [0.1, 0.2]})["job"]
    assert states(backend.wait(workspace, first)) == {0.1: "failed", 0.2: "success"}
    before = heads(backend, workspace, "source", "data", "hyper", "build")
    assert left(backend, workspace, first) == {"half": b"half"}
    gate.open()
    again = retry(backend, workspace, first[:8])
    assert (again["status"], again["of"], again["stages"]) == ("started", first, ["train"])
    ended = backend.wait(workspace, "last")
    assert (ended["id"], ended["state"]) == (again["job"], "success")
    assert states(ended) == {0.1: "success", 0.2: "skipped"}
    assert heads(backend, workspace, "source", "data", "hyper", "build") == before
    assert heads(backend, workspace, "train") == {"train": again["job"]}
    # The deploy of the same finds it done, and there is nothing to retry.
    assert backend.deploy(workspace, source=source, data=data)["job"] == again["job"]
    path = f"/workspaces/{workspace}/jobs/last/archive?what=failed"
    backend.error("GET", path, 404, "no_such_model")
    nothing = retry(backend, workspace, "last")
    assert (nothing["status"], nothing["message"]) == ("unchanged", "every trial of it succeeded")


def test_an_older_job_runs_again_on_what_it_had(backend: Backend, workspace: str, gate: Gate) -> None:
    body = "open(out + '/seen', 'w').write(open(os.environ['KAOS_DATA_DIR'] + '/a.txt').read())"
    source = backend.put(workspace, "source", {**SOURCE, "train": script(gate, body)})
    data = backend.put(workspace, "data", DATA)
    old = backend.deploy(workspace, source=source, data=data, hyper={"lr": [0.1]})["job"]
    assert backend.wait(workspace, old)["state"] == "failed"
    newer = backend.put(workspace, "source", {**SOURCE, "train": b"#!/bin/sh\necho new > $1/seen\n"})
    other = backend.put(workspace, "data", {"a.txt": b"other\n"})
    current = backend.deploy(workspace, source=newer, data=other)["job"]
    assert backend.wait(workspace, current)["state"] == "success"
    before = heads(backend, workspace, "source", "data", "hyper", "build", "train")
    gate.open()
    again = retry(backend, workspace, old)["job"]
    ended = backend.wait(workspace, again)
    assert (ended["state"], ended["source"]["id"], ended["data"]["id"]) == ("success", source, data)
    model = ended["trials"][0]["model"]
    with backend.sdk().pfs.pfs_file(_file(workspace, again, f"/{model}/seen")) as seen:
        assert seen.read() == DATA["a.txt"]
    assert heads(backend, workspace, "source", "data", "hyper", "build", "train") == before
    # What is current is told from it: nothing has to run, or was lost.
    unchanged = backend.deploy(workspace, source=newer, data=other)
    assert (unchanged["status"], unchanged["job"]) == ("unchanged", current)
    # And what comes next is based on what is current.
    more = backend.deploy(workspace, hyper={"lr": [0.1, 0.2]})["job"]
    assert states(backend.wait(workspace, more)) == {0.1: "skipped", 0.2: "success"}


def test_only_what_failed_where_others_never_ran(backend: Backend, workspace: str, gate: Gate) -> None:
    body = "is_open or time.sleep(600)"
    source = backend.put(workspace, "source", {**SOURCE, "train": script(gate, body)})
    data = backend.put(workspace, "data", DATA)
    grid = {"lr": [0.1, 0.2, 0.3, 0.4]}
    # Two at a time: the one that fails and another, or two others first, one of which is stopped then.
    more = {"parallelism": 2, "resources": {"cpu": 0.5}}
    job = backend.deploy(workspace, source=source, data=data, hyper=grid, **more)["job"]
    path = f"/workspaces/{workspace}/jobs/{job}"

    def failed() -> bool:
        trials = backend.call("GET", path)["trials"]
        others = [t for t in trials if t["state"] == "running" and t["params"]["lr"] != 0.1]
        if len(others) == 2:
            backend.call("POST", f"{path}/trials/{others[0]['trial']}/stop")
        return any(t["state"] == "failed" and t["params"]["lr"] == 0.1 for t in trials)

    eventually(failed)
    error = backend.error("POST", f"{path}/retry", 409, "not_yet", json={})
    assert "kaos train wait" in error["hint"]
    backend.error("GET", f"{path}/archive?what=failed", 409, "not_yet")
    backend.call("POST", f"{path}/stop")
    # It was kept, though the job was stopped.
    assert left(backend, workspace, job)["half"] == b"half"
    before = states(backend.wait(workspace, job))
    gate.open()
    again = retry(backend, workspace, job, failed=True)["job"]
    after = states(backend.wait(workspace, again))
    assert {lr for lr, state in after.items() if state == "success"} == {
        lr for lr, state in before.items() if state == "failed"
    }
    assert {lr for lr, state in after.items() if state == "unrunnable"} == {
        lr for lr, state in before.items() if state == "killed"
    }


def test_a_failed_build_is_made_again_with_what_waits_for_it(backend: Backend, workspace: str) -> None:
    broken = {**SOURCE, "Dockerfile": b"FROM python:3\nRUN false\n"}
    source = backend.put(workspace, "source", broken)
    job = backend.deploy(workspace, source=source, data=backend.put(workspace, "data", DATA))["job"]
    assert backend.wait(workspace, job)["state"] == "failed"
    again = retry(backend, workspace, job)
    assert again["stages"] == ["build", "train"]
    assert backend.wait(workspace, again["job"])["state"] == "failed"


def test_a_lost_image_is_built_again_for_what_is_current(
    backend: Backend, workspace: str, gate: Gate
) -> None:
    source = backend.put(workspace, "source", {**SOURCE, "train": script(gate)})
    jobs = []
    for data in (DATA, {"other": b"data"}):
        sent = backend.put(workspace, "data", data)
        jobs.append(backend.deploy(workspace, source=source, data=sent, hyper={"lr": [0.1, 0.2]})["job"])
        assert backend.wait(workspace, jobs[-1])["state"] == "partial"
    for image in (backend.home / "engine" / "images").glob("kaos-*"):
        shutil.rmtree(image)
    gate.open()
    older, current = (f"/workspaces/{workspace}/jobs/{job}" for job in jobs)
    error = backend.error("POST", f"{older}/retry", 409, "image_missing", json={})
    assert "deploy its source again" in error["message"]
    again = backend.call("POST", f"{current}/retry", json={})
    assert again["stages"] == ["build", "train"]
    assert states(backend.wait(workspace, again["job"])) == {0.1: "success", 0.2: "skipped"}


def _file(workspace: str, job: str, path: str) -> Any:
    return pfs.File(commit=pfs.Commit(repo=repo(workspace, "train"), id=job), path=path)
