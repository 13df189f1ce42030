"""Jobs and old versions go, what stays is whole, and a stranger's SDK client sees a history that adds up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pachyderm_sdk.api import pfs, pps

from tests.support.backend import DATA, SOURCE, Backend, repo
from tests.support.gate import Gate

OTHER = {"a.txt": b"other\n"}
GRID = {"lr": [0.1, 0.2]}


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.close()


def run(backend: Backend, workspace: str, **inputs: Any) -> str:
    made = backend.deploy(workspace, **inputs)
    assert made["status"] == "started"
    assert backend.wait(workspace, made["job"])["state"] == "success"
    return str(made["job"])


def remove(backend: Backend, workspace: str, **what: Any) -> Any:
    return backend.call("POST", f"/workspaces/{workspace}/removals", json=what)


def refused(backend: Backend, workspace: str, code: str = "in_use", **what: Any) -> Any:
    return backend.error("POST", f"/workspaces/{workspace}/removals", 409, code, json=what)


def jobs(backend: Backend, workspace: str) -> list[str]:
    return [job["id"] for job in backend.call("GET", f"/workspaces/{workspace}/jobs")["jobs"]]


def versions(backend: Backend, workspace: str, kind: str = "data") -> list[tuple[str, bool, list[str]]]:
    found = backend.call("GET", f"/workspaces/{workspace}/versions/{kind}")["versions"]
    return [(one["id"], one["current"], one["jobs"]) for one in found]


def history(backend: Backend, workspace: str, name: str) -> list[str]:
    """The ids of a branch's commits from its head back, by their parents; all of them are readable."""
    client, found = backend.sdk(), []
    at = pfs.Commit(repo=repo(workspace, name), id="master")
    while True:
        info = client.pfs.inspect_commit(commit=at)
        list(client.pfs.walk_file(file=pfs.File(commit=info.commit, path="/")))
        found.append(info.commit.id)
        if not info.parent_commit or not info.parent_commit.id:
            return found
        at = info.parent_commit


def test_what_nothing_needs_goes_and_what_stays_is_whole(backend: Backend, workspace: str) -> None:
    source, old = backend.put(workspace, "source", SOURCE), backend.put(workspace, "data", DATA)
    first = run(backend, workspace, source=source, data=old, hyper=GRID)
    new = backend.put(workspace, "data", OTHER)
    second = run(backend, workspace, data=new)
    third = run(backend, workspace, hyper={"lr": [0.1, 0.2, 0.3]})
    assert versions(backend, workspace) == [(new, True, [third, second]), (old, False, [first])]
    assert versions(backend, workspace, "source") == [(source, True, [third, second, first])]

    assert refused(backend, workspace, data=[old[:6]])["fields"]["jobs"] == [first]
    assert "current" in refused(backend, workspace, data=[new], force=True)["message"]
    assert refused(backend, workspace, jobs=[first, second])["fields"]["jobs"] == [third]
    assert jobs(backend, workspace) == [third, second, first]

    would = remove(backend, workspace, jobs=[first[:8]], data=[old], dry_run=True)
    assert (would["jobs"], would["data"], would["dry_run"]) == ([first], [old], True)
    assert jobs(backend, workspace) == [third, second, first]
    before = backend.call("GET", f"/workspaces/{workspace}/jobs/{third}")["trials"]
    remove(backend, workspace, jobs=[first[:8]], data=[old])
    backend.error("GET", f"/workspaces/{workspace}/jobs/{first}", 404, "no_such_job")
    assert versions(backend, workspace) == [(new, True, [third, second])]
    assert history(backend, workspace, "train") == [third, second]
    assert history(backend, workspace, "data") == [second]
    client = backend.sdk()
    meta = pfs.Repo(name="train", type="meta", project=pfs.Project(name=workspace))
    assert first not in {info.commit.id for info in client.pfs.list_commit(repo=meta)}
    assert [job.job.id for job in client.pps.list_job(pipeline=pps.Pipeline(
        name="train", project=pfs.Project(name=workspace)), history=-1)] == [third, second]  # fmt: skip

    # Shared models stay with who has them.
    assert remove(backend, workspace, jobs=[second], force=True)["jobs"] == [second]
    assert backend.call("GET", f"/workspaces/{workspace}/jobs/{third}")["trials"] == before
    assert history(backend, workspace, "train") == [third]
    # What was removed is not taken for done.
    backend.put(workspace, "data", DATA)
    fourth = run(backend, workspace, data=old)
    train = backend.call("GET", f"/workspaces/{workspace}/jobs/{fourth}")["stages"][-1]
    assert (train["processed"], train["skipped"]) == (3, 0)


def test_the_current_job_goes_and_the_same_deploy_makes_it_again(backend: Backend, workspace: str) -> None:
    source, old = backend.put(workspace, "source", SOURCE), backend.put(workspace, "data", DATA)
    first = run(backend, workspace, source=source, data=old)
    new = backend.put(workspace, "data", OTHER)
    second = run(backend, workspace, data=new)
    assert remove(backend, workspace, jobs=["last"])["jobs"] == [second]
    assert jobs(backend, workspace) == [first]
    again = backend.deploy(workspace, data=new)
    assert (again["status"], again["stages"]) == ("started", ["train"])
    assert "removed" in again["message"]
    third = backend.wait(workspace, again["job"])
    assert (third["state"], third["inputs"]["data"]["id"]) == ("success", new)
    assert backend.deploy(workspace, data=new)["status"] == "unchanged"

    # Of everything, with the version that it was made of.
    gone = remove(backend, workspace, jobs=[third["id"]], data=[old], force=True)
    assert (gone["jobs"], gone["data"]) == ([third["id"], first], [old])
    assert (jobs(backend, workspace), versions(backend, workspace)) == ([], [(new, True, [])])
    assert backend.call("GET", f"/workspaces/{workspace}")["last_job"] is None
    run(backend, workspace, data=new)
    assert not [one for one in backend.call("GET", "/status")["jobs"] if one["workspace"] == workspace]


def test_a_version_of_the_code_goes_with_its_images_and_a_failed_build_with_its_job(
    backend: Backend, workspace: str
) -> None:
    data = backend.put(workspace, "data", DATA)
    broken = backend.put(workspace, "source", {**SOURCE, "Dockerfile": b"FROM python:3\nRUN false\n"})
    failed = backend.deploy(workspace, source=broken, data=data)["job"]
    assert backend.wait(workspace, failed)["state"] == "failed"
    remove(backend, workspace, jobs=[failed])
    again = backend.deploy(workspace, source=broken)
    assert (again["status"], again["stages"]) == ("started", ["build", "train"])
    assert backend.wait(workspace, again["job"])["state"] == "failed"
    good = backend.put(workspace, "source", SOURCE)
    last = run(backend, workspace, source=good)
    gone = remove(backend, workspace, source=[broken], force=True)
    assert (gone["jobs"], gone["source"]) == ([again["job"]], [broken])
    assert versions(backend, workspace, "source") == [(good, True, [last])]
    assert {
        name: history(backend, workspace, name)[0] for name in ("source", "build", "train")
    } == dict.fromkeys(("source", "build", "train"), last)


def test_an_open_job_and_the_one_before_it_stay(backend: Backend, workspace: str, gate: Gate) -> None:
    train = (
        b"#!/usr/bin/env python3\nimport os, sys\nif os.listdir(os.environ['KAOS_DATA_DIR']) == ['wait']: "
    )
    source = backend.put(workspace, "source", {**SOURCE, "train": train + gate.wait.encode() + b"\n"})
    first = run(backend, workspace, source=source, data=backend.put(workspace, "data", DATA))
    waits = backend.put(workspace, "data", {"wait": b""})
    second = backend.deploy(workspace, data=waits)["job"]
    assert refused(backend, workspace, "job_open", jobs=[second])["fields"]["jobs"] == [second]
    assert refused(backend, workspace, "job_open", jobs=[first])["fields"]["jobs"] == [second]
    gate.open()
    backend.wait(workspace, second)
    assert remove(backend, workspace, jobs=[first, second, first])["jobs"] == [second, first]


def test_bad_references_remove_nothing(backend: Backend, workspace: str) -> None:
    source, data = backend.put(workspace, "source", SOURCE), backend.put(workspace, "data", DATA)
    job = run(backend, workspace, source=source, data=data)
    path = f"/workspaces/{workspace}/removals"
    backend.error("POST", path, 404, "no_such_job", json={"jobs": [job, "f" * 32]})
    backend.error("POST", path, 404, "no_bundle", json={"jobs": [job], "data": ["f" * 32]})
    backend.error("POST", path, 404, "no_bundle", json={"data": [""]})
    backend.error("POST", path, 409, "in_use", json={"jobs": [job], "data": [data]})
    backend.error("POST", "/workspaces/none/removals", 404, "no_such_workspace", json={})
    assert jobs(backend, workspace) == [job]
