"""Pages of jobs and trials, and what has changed, while a job grows and its servers come and go."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.backend import DATA, Backend, running_backend, stop_engine
from tests.support.gate import Gate
from tests.support.waiting import eventually

COUNT = 6
# Trials of a higher number than that wait at the gate.
FREE = 2


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.close()


def source(gate: Gate) -> dict[str, bytes]:
    train = f"""#!/usr/bin/env python3
import json, os, sys
n = json.load(open(os.environ["KAOS_PARAMS"]))["n"]
if n > {FREE}:
    {gate.wait}
if n != 1:
    open(sys.argv[1] + "/metrics.json", "w").write(json.dumps({{"value": n}}))
open(sys.argv[1] + "/model", "w").write(str(n))
"""
    version = ".".join(map(str, sys.version_info[:2]))
    dockerfile = f"FROM python:{version}-slim\nWORKDIR /app\nCOPY . ./\n"
    return {"Dockerfile": dockerfile.encode(), "train": train.encode()}


def page(backend: Backend, workspace: str, **query: int) -> Any:
    return backend.call("GET", f"/workspaces/{workspace}/jobs/last/trials", params=query)


def pages(backend: Backend, workspace: str, **query: int) -> Iterator[Any]:
    found = page(backend, workspace, **query)
    yield found
    while found["next"] is not None:
        found = page(backend, workspace, **(query | {"after": found["next"]}))
        yield found


def told(backend: Backend, workspace: str, since: int) -> dict[int, str]:
    """Number → state of the trials that changed."""
    return {one["trial"]: one["state"] for one in page(backend, workspace, since=since)["trials"]}


def test_trials_page_and_change_while_the_job_grows(tmp_path: Path, gate: Gate) -> None:
    with running_backend(tmp_path / "home") as backend:
        files = {"source": backend.put("default", "source", source(gate), "gated")}
        files["data"] = backend.put("default", "data", DATA, "letters")
        backend.deploy(
            "default", **files, hyper={"n": list(range(COUNT))}, parallelism=COUNT, resources={"cpu": 0.25}
        )

        # As soon as all that has ended can be read, the one without metrics too.
        first = eventually(
            lambda: (seen := page(backend, "default"))["revision"] == FREE + 1 and seen, timeout_s=60
        )
        assert first["state"] == "running"
        values = {one["trial"]: one["metrics"].get("value") for one in first["trials"]}
        assert values == {0: 0, 1: None, 2: 2, 3: None, 4: None, 5: None}
        running = {3: "running", 4: "running", 5: "running"}
        assert told(backend, "default", FREE + 1) == running

        # The first page while it runs, the others when it has ended.
        growing = pages(backend, "default", limit=2)
        seen = [next(growing)]
        gate.open()
        backend.wait("default")
        seen += growing
        assert [one["trial"] for part in seen for one in part["trials"]] == list(range(COUNT))
        assert [part["count"] for part in seen] == [COUNT] * 3
        since = {one["trial"]: one for part in pages(backend, "default", limit=1, since=FREE + 1)
                 for one in part["trials"]}  # fmt: skip
        assert {n: (one["state"], one["metrics"]) for n, one in since.items()} == {
            n: ("success", {"value": n}) for n in (3, 4, 5)
        }
        whole = page(backend, "default")
        assert (whole["revision"], whole["state"], whole["next"]) == (COUNT, "success", None)
        assert told(backend, "default", COUNT) == {}
        detail = backend.call("GET", "/workspaces/default/jobs/last")
        assert sorted(detail["trials"], key=lambda one: one["trial"]) == whole["trials"]
        best = backend.call("GET", "/workspaces/default/jobs/last?limit=2")
        assert (best["trials"], best["count"], best["varied"]) == (detail["trials"][:2], COUNT, ["n"])
        job = whole["job"]

        # The engine goes, and another backend asks: without its cache, with it, and with a broken one.
        stop_engine(backend.home)
        assert page(backend, "default") == whole
    cache = tmp_path / "home" / "cache" / "metrics.sqlite"
    for spoil in (lambda: None, cache.unlink, lambda: cache.write_bytes(b"x" * 5000)):
        spoil()
        with running_backend(tmp_path / "home") as backend:
            assert page(backend, "default") == whole
            assert sorted(told(backend, "default", FREE + 1)) == [3, 4, 5]
            assert backend.call("GET", "/workspaces/default/jobs/last")["trials"] == detail["trials"]

            # In a job that has some of them already, and in pages of jobs.
            if spoil is cache.unlink:
                backend.deploy("default", hyper={"n": [*range(COUNT), COUNT]})
                again = backend.wait("default")
                assert [one["metrics"].get("value") for one in again["trials"]] == [6, 5, 4, 3, 2, 0, None]
                assert [one["state"] for one in again["trials"]].count("skipped") == COUNT
                listed = backend.call("GET", "/workspaces/default/jobs?limit=1")
                assert ([one["id"] for one in listed["jobs"]], listed["next"]) == ([again["id"]],) * 2
                rest = backend.call("GET", f"/workspaces/default/jobs?limit=1&after={again['id']}")
                assert ([one["id"] for one in rest["jobs"]], rest["next"]) == ([job], None)
                (listed,) = backend.call("GET", "/workspaces")["workspaces"]
                assert listed["jobs"] == 2
                assert backend.call("GET", f"/workspaces/default/jobs/{job[:9]}/summary")["id"] == job
                whole, detail = page(backend, "default"), again
