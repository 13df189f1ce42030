"""The backend as a process: ``python -m kaos_backend``, and what ``kill -9`` of it leaves."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps

from kaos_formats.files import read_json
from tests.support.archives import archive
from tests.support.backend import SOURCE, repo, stop_engine
from tests.support.process import Process
from tests.support.waiting import eventually

KILLS = 6
DEPLOY_S = 0.15
"""What a deploy takes, about: the kills are spread evenly over it."""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    stop_engine(tmp_path / "home")


def failed(process: Process) -> tuple[int, str]:
    _, stderr = process.process.communicate(timeout=30)
    return process.process.returncode, stderr


def test_it_starts_serves_and_ends(home: Path) -> None:
    process = Process(home).wait()
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "token").stat().st_mode & 0o777 == 0o600
    assert process.request("GET", "/health").json()["pid"] == process.process.pid
    assert requests.get(process.url + "/health", timeout=10).status_code == 401
    assert process.request("GET", "/workspaces").json()["workspaces"][0]["name"] == "default"
    engine = read_json(home / "engine.json")["pid"]
    assert process.end() in (0, -signal.SIGTERM)
    again = Process(home).wait()
    assert again.url == process.url
    assert again.request("GET", "/workspaces").status_code == 200
    assert read_json(home / "engine.json")["pid"] == engine
    again.end(signal.SIGKILL)


def test_only_one_per_home(home: Path) -> None:
    first = Process(home).wait()
    code, stderr = failed(Process(home))
    assert code == 3
    assert first.url.removesuffix("/v1") in stderr
    first.end(signal.SIGKILL)


def test_a_port_in_use_is_named(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, stderr = failed(Process(home, KAOS_PORT=str(port)))
    assert code == 2
    assert f"port {port}" in stderr
    assert "Traceback" not in stderr


def test_a_port_that_is_none(home: Path) -> None:
    code, stderr = failed(Process(home, KAOS_PORT="http"))
    assert code == 2
    assert "KAOS_PORT='http'" in stderr


def test_a_refused_setting_costs_nothing(home: Path) -> None:
    refused = Process(home, KAOS_RUNTIME="docker", DOCKER_HOST="unix:///none.sock", KAOS_REGISTRY="team")
    eventually(lambda: read_json(home / "backend.json").get("pid") == refused.process.pid, timeout_s=30)
    url = read_json(home / "backend.json")["url"] + "/v1/workspaces"
    token = {"Authorization": f"Bearer {(home / 'token').read_text().strip()}"}
    answer = requests.get(url, headers=token, timeout=60)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (503, "settings_refused")
    assert "KAOS_REGISTRY is 'team': must be host:port" in error["message"]
    assert failed(refused)[0] == 0
    # The next one has an environment of its own, and a home as if nothing had been.
    mended = Process(home).wait()
    assert mended.end() in (0, -signal.SIGTERM)


def test_the_port_that_was_asked_for(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = Process(home, KAOS_PORT=str(port)).wait()
    assert f":{port}/" in process.url
    process.end(signal.SIGKILL)


def commits(client: Client, name: str) -> dict[str, pfs.CommitInfo]:
    found = client.pfs.list_commit(repo=repo("default", name), all=True)
    return {c.commit.id: c for c in found if '"staging","id"' not in c.description}


def check_nothing_half_done(client: Client, before: set[str]) -> set[str]:
    """New commit sets are complete; returns the ids of all there are."""
    data, hyper = commits(client, "data"), commits(client, "hyper")
    assert set(data) == set(hyper)
    new = set(data) - before
    assert len(new) <= 1
    for name, found in (("data", data), ("hyper", hyper)):
        for info in found.values():
            assert info.finished.timestamp() > 0, name
            assert info.error == ""
    for job_id in new:
        jobs = list(client.pps.inspect_job_set(job_set=pps.JobSet(id=job_id)))
        assert [j.job.pipeline.name for j in jobs] == ["train"]
    branches = [b.branch.name for b in client.pfs.list_branch(repo=repo("default", "data"))]
    for name in branches:
        if name != "master":
            commit = pfs.Commit(repo=repo("default", "data"), id=name)
            head = client.pfs.inspect_commit(commit=commit)
            # An open one is kept for what has come of its bundle.
            assert head.finished.timestamp() > 0 or list(
                client.pfs.list_file(file=pfs.File(commit=head.commit, path="/"))
            )
    # One that died before its first request holds nothing; recovery lets it be for an hour.
    assert not [t for t in client.transaction.list_transaction().transaction_info if t.requests]
    return set(data)


def test_kill_9_at_any_moment_of_a_deploy(home: Path) -> None:
    """Exactly one commit set and one job come of each deploy, however often the backend dies in it."""
    chance = random.Random(20260101)
    process = Process(home).wait()

    def put(kind: str, files: dict[str, bytes]) -> str:
        bundle_id, body = archive(files)
        process.request(
            "PUT", f"/workspaces/default/bundles/{kind}/{bundle_id}?name=x", data=body
        ).raise_for_status()
        return bundle_id

    def deploy(body: dict[str, Any]) -> dict[str, Any]:
        response = process.request("POST", "/workspaces/default/deploys", json=body)
        response.raise_for_status()
        answer = response.json()
        assert isinstance(answer, dict)
        return answer

    deploy({"source": put("source", dict(SOURCE)), "data": put("data", {"a": b"0"}), "hyper": {"lr": [0.0]}})
    info = read_json(home / "engine.json")
    client = Client(host=info["host"], port=info["port"], auth_token=(home / "token").read_text().strip())
    known = check_nothing_half_done(client, set(commits(client, "data")))
    outcomes = set()
    for number in range(1, KILLS + 1):
        files = {"a": b"%d" % number}
        body: dict[str, Any] = {"hyper": {"lr": [number / 100]}}

        def attempt(files: dict[str, bytes] = files, body: dict[str, Any] = body) -> None:
            with contextlib.suppress(requests.RequestException):
                body["data"] = put("data", files)
                deploy(body)

        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join(DEPLOY_S * (number - chance.random()) / KILLS)
        process.end(signal.SIGKILL)
        thread.join(20)
        process = Process(home).wait()
        assert process.request("GET", "/workspaces").status_code == 200
        seen = check_nothing_half_done(client, known)
        outcomes.add(len(seen - known))
        answer = deploy({"data": put("data", files), "hyper": body["hyper"]})
        now = check_nothing_half_done(client, known)
        assert len(now - known) == 1
        assert answer["job"] == (now - known).pop()
        known = now
    eventually(
        lambda: process.request("GET", "/workspaces/default/jobs/last").json()["state"] == "success", 60
    )
    jobs = process.request("GET", "/workspaces/default/jobs").json()["jobs"]
    assert len(jobs) == KILLS + 1
    assert {job["state"] for job in jobs} == {"success"}
    staging = [b.branch.name for b in client.pfs.list_branch(repo=repo("default", "data"))]
    assert staging == ["master"]
    assert outcomes, "the kills fell on both sides of the transaction"
    process.end(signal.SIGKILL)
