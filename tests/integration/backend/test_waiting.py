"""Nothing waits silently: what waits says for what, at its job, its stages, its trials and in its log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.backend import DATA, SOURCE, Backend, lines, running_backend, stop_engine
from tests.support.waiting import eventually

SLOW = b"#!/bin/sh\nexec sleep 600\n"


@pytest.fixture
def busy(backend: Backend) -> Iterator[str]:
    """The id of a job with one trial that has all cores of the machine."""
    name = backend.workspace("busy")
    source = backend.put(name, "source", {**SOURCE, "train": SLOW})
    cpus = backend.call("GET", "/status")["machine"]["cpus"]
    made = backend.deploy(
        name, source=source, data=backend.put(name, "data", DATA), resources={"cpu": cpus}, parallelism=1
    )
    eventually(lambda: trials(backend, name) == [("running", "")])
    yield made["job"]
    backend.call("DELETE", f"/workspaces/{name}")


def info(backend: Backend, workspace: str, job: str = "last") -> Any:
    return backend.call("GET", f"/workspaces/{workspace}/jobs/{job}")


def trials(backend: Backend, workspace: str) -> list[tuple[str, str]]:
    return [(trial["state"], trial["reason"]) for trial in info(backend, workspace)["trials"]]


def end(backend: Backend, workspace: str, query: str = "") -> Any:
    path = f"/workspaces/{workspace}/jobs/last/logs{query}"
    return lines(backend.request("GET", path).text)[-1]


def test_what_waits_for_cores_says_so_and_who_has_them(backend: Backend, workspace: str, busy: str) -> None:
    backend.deploy_all(workspace, {"lr": [0.1, 0.5]}, parallelism=1)
    holder = f"in use by job {busy[:8]} of busy/train"

    def told() -> Any:
        job = info(backend, workspace)
        return job if holder in job["reason"] else None

    # The build comes first, and waits for its share as well.
    build = eventually(told)
    assert build["state"] == "waiting"
    states = [(stage["name"], stage["state"], stage["total"]) for stage in build["stages"]]
    assert states == [("build", "waiting", 1), ("train", "waiting", 2)]
    assert build["stages"][1]["reason"] == "waits for build to finish"
    assert [trial["state"] for trial in build["trials"]] == ["waiting", "waiting"]
    assert {trial["reason"] for trial in build["trials"]} == {"waits for build to finish"}
    (listed,) = backend.call("GET", f"/workspaces/{workspace}/jobs")["jobs"]
    assert (listed["state"], holder in listed["reason"]) == ("waiting", True)
    ended = end(backend, workspace, "?trial=1")
    assert (ended["state"], holder in ended["reason"]) == ("waiting", True)
    assert ended["trial"] == {"state": "waiting", "reason": "waits for build to finish"}
    ended = end(backend, workspace, "?stage=build")
    assert (ended["state"], holder in ended["reason"]) == ("waiting", True)
    backend.call("DELETE", "/workspaces/busy")
    backend.workspace("busy")
    assert backend.wait(workspace)["state"] == "success"


def test_trials_beside_running_ones_wait(backend: Backend, workspace: str) -> None:
    source = backend.put(workspace, "source", {**SOURCE, "train": SLOW})
    data = backend.put(workspace, "data", DATA)
    first = backend.deploy(
        workspace, source=source, data=data, hyper={"lr": [1, 2, 3]}, parallelism=1, resources={"cpu": 0.1}
    )["job"]
    eventually(lambda: ("running", "") in trials(backend, workspace))
    told = eventually(lambda: (job := info(backend, workspace))["reason"] and job)
    assert told["state"] == "running"
    assert sorted(trial["state"] for trial in told["trials"]) == ["running", "waiting", "waiting"]
    waiting = next(trial for trial in told["trials"] if trial["state"] == "waiting")
    assert waiting["reason"] == told["reason"] == "2 trials wait for a place in its pipeline (1 at a time)"
    # Another grid is another job; jobs of a workspace run one after another.
    second = backend.deploy(workspace, hyper={"lr": [4]})["job"]
    after = f"waits for job {first[:8]} of the same pipeline, which comes first"
    eventually(lambda: info(backend, workspace, second)["reason"] == after)
    job = info(backend, workspace, second)
    assert (job["state"], [s["state"] for s in job["stages"]]) == ("waiting", ["waiting"])
    assert trials(backend, workspace) == [("waiting", after)]
    told = [row for row in backend.call("GET", "/status")["jobs"] if row["workspace"] == workspace]
    counts = [(row["id"], row["waits_for"], row["total"], row["done"], row["running"]) for row in told]
    assert counts == [(first, ["parallelism"], 3, 0, 1), (second, ["turn"], 1, 0, 0)]
    # Nothing of the kind has ended yet.
    assert [row["left_s"] for row in told] == [None, None]
    path = f"{backend.url}/workspaces/{workspace}/jobs/{second}/logs?follow=true"
    with backend.http.get(path, stream=True, timeout=30) as response:
        assert lines(next(response.iter_lines(chunk_size=1)).decode()) == [{"waiting": True, "reason": after}]
    for each in (second, first):
        backend.call("POST", f"/workspaces/{workspace}/jobs/{each}/stop")
    assert {trial["state"] for trial in info(backend, workspace, first)["trials"]} == {"killed"}


def test_one_trial_is_stopped_and_the_others_go_on(backend: Backend, workspace: str) -> None:
    source = backend.put(workspace, "source", {**SOURCE, "train": SLOW})
    data = backend.put(workspace, "data", DATA)
    grid = {"lr": [0.1, 0.2]}
    job = backend.deploy(
        workspace, source=source, data=data, hyper=grid, parallelism=1, resources={"cpu": 0.1}
    )["job"]
    path = f"/workspaces/{workspace}/jobs/{job[:9]}/trials"
    eventually(lambda: ("running", "") in trials(backend, workspace))
    running = next(t["trial"] for t in info(backend, workspace)["trials"] if t["state"] == "running")
    stopped = backend.call("POST", f"{path}/{1 - running}/stop")
    assert (stopped["job"], stopped["trial"], stopped["state"]) == (job, 1 - running, "failed")
    assert stopped["reason"] == "stopped by the user"
    assert sorted(trials(backend, workspace)) == [("failed", "stopped by the user"), ("running", "")]
    by = f"{path}/{running}/stop?author=ada%40lab"
    assert backend.call("POST", by)["reason"] == "stopped by ada@lab"
    ended = backend.wait(workspace, job)
    assert ended["reason"].startswith("all 2 trials failed: stopped by ")
    assert ended["reason"].count("stopped by ada@lab (1)") == 1
    assert [(kind["code"], len(kind["trials"])) for kind in ended["failures"]] == [("killed", 1)] * 2
    backend.error("POST", f"{path}/{running}/stop?author=%1b[2J", 400, "invalid_name")
    # And once more, when it has ended.
    assert backend.call("POST", f"{path}/{running}/stop")["state"] == "failed"
    error = backend.error("POST", f"{path}/2/stop", 404, "not_found")
    assert error["hint"] == "its trials are numbered 0 to 1"


def test_a_pause_lets_nothing_new_start_and_outlasts_the_engine(home: Path) -> None:
    with running_backend(home) as backend:
        one, other = backend.workspace("one"), backend.workspace("other")
        paused = {"workspace": one, "paused": True}
        assert backend.call("POST", "/pause", json=paused)["workspaces"] == [one]
        job = backend.deploy_all(one)["job"]
        backend.deploy_all(other)
        assert backend.wait(other)["state"] == "success"
        why = "waits for a resume: workspace one is paused"
        eventually(lambda: info(backend, one)["stages"][0]["reason"] == why)
        stop_engine(home)
        eventually(lambda: info(backend, one)["stages"][0]["reason"] == why)
        status = backend.call("GET", "/status")
        assert status["paused"] == {"everywhere": False, "workspaces": [one]}
        assert [(row["waits_for"], row["left_s"]) for row in status["jobs"]] == [(["resume"], None)]
        everywhere = {"workspace": None, "paused": True}
        assert backend.call("POST", "/pause", json=everywhere)["everywhere"]
        assert backend.call("POST", "/pause", json={**paused, "paused": False})["everywhere"]
        ended = {"everywhere": False, "workspaces": [], "version": 1}
        assert backend.call("POST", "/pause", json={**everywhere, "paused": False}) == ended
        assert backend.wait(one, job)["state"] == "success"
        backend.error("POST", "/pause", 404, "no_such_workspace", json={"workspace": "x", "paused": True})
        # What is paused goes with the workspace.
        backend.call("POST", "/pause", json=paused)
        backend.call("DELETE", "/workspaces/one")
        assert backend.call("GET", "/status")["paused"]["workspaces"] == []
