"""Logs and archives of jobs, before, during and after they ran."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import zstandard

from kaos_formats import loglines
from tests.support.backend import DATA, SOURCE, TRAIN, Backend, lines
from tests.support.waiting import eventually

GRID = {"lr": [0.1, 0.5], "fail": [False]}


@pytest.fixture(scope="module")
def done(backend: Backend) -> str:
    """A workspace with a finished job of three trials, of which the last fails."""
    name = backend.workspace("done")
    backend.deploy_all(name, {"lr": [0.1, 0.5], "fail": [False, True]})
    backend.wait(name)
    return name


def logs(backend: Backend, workspace: str, query: str = "") -> list[dict[str, object]]:
    response = backend.request("GET", f"/workspaces/{workspace}/jobs/last/logs{query}")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    found = lines(response.text)
    assert found[-1].keys() - {"trial"} == {"end", "state", "reason"}
    return found


def unpacked(response: requests.Response) -> dict[str, tuple[bytes, int]]:
    assert response.status_code == 200, response.text
    data = zstandard.ZstdDecompressor().stream_reader(response.content).read()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = {
            m.name: ((f := archive.extractfile(m)) and f.read(), m.mode) for m in archive if m.isfile()
        }
    return {name: (content or b"", mode) for name, (content, mode) in members.items()}


def test_the_build_first_then_each_trial(backend: Backend, done: str) -> None:
    found = logs(backend, done)
    assert found[-1] == {
        "end": True,
        "state": "partial",
        "reason": "2 of 4 trials failed: exit code 3: failing as told",
    }
    stages = [line["stage"] for line in found[:-1]]
    assert stages == sorted(stages)
    assert any("FROM python" in str(line["text"]) for line in found if line["stage"] == "build")
    numbers = [line["trial"] for line in found if line.get("stage") == "train"]
    assert numbers == sorted(numbers)  # type: ignore[type-var]
    assert set(numbers) == {0, 1, 2, 3}
    first = next(line for line in found if line.get("stage") == "train" and line["user"])
    assert first["text"] == 'training with {"fail":false,"lr":0.1}'
    assert str(first["model"]).count("-") == 2
    assert str(first["ts"]).endswith("Z")


def test_one_trial_that_failed(backend: Backend, done: str) -> None:
    found = logs(backend, done, "?trial=3")
    assert {line["trial"] for line in found[:-1]} == {3}
    assert "failing as told" in [line["text"] for line in found[:-1] if line["user"]]
    assert any("exit code 3" in str(line["text"]) for line in found[:-1] if not line["user"])
    assert found[-1]["trial"] == {"state": "failed", "reason": "exit code 3: failing as told"}


def test_only_the_build_and_only_the_tail(backend: Backend, done: str) -> None:
    build = logs(backend, done, "?stage=build")[:-1]
    assert {line["stage"] for line in build} == {"build"}
    assert logs(backend, done, "?stage=build&tail=1")[:-1] == build[-1:]
    assert len(logs(backend, done, "?trial=0&tail=1")) == 2


@pytest.mark.parametrize(
    "query", ["", "&trial=3", "&stage=build", "&trial=0&tail=1", "&tail=2", "&follow=true"]
)
def test_blocks_have_the_same_lines(backend: Backend, done: str, query: str) -> None:
    response = backend.request("GET", f"/workspaces/{done}/jobs/last/logs?form=blocks{query}")
    assert response.headers["content-type"] == "application/vnd.kaos.log"
    found: list[dict[str, object]] = []
    stream = io.BytesIO(response.content)
    while head := stream.readline():
        item = json.loads(head)
        if (size := item.pop("bytes", None)) is None:
            found.append(item)
            continue
        assert size == item.pop("to") - item.pop("at")
        found += [
            item | {"ts": loglines.time_of(line), "user": line.user, "text": line.text}
            for line in loglines.lines(stream.read(size))
        ]
    assert found == logs(backend, done, f"?{query.removeprefix('&')}")
    assert len(found) > 1


def test_a_trial_that_the_job_does_not_have(backend: Backend, done: str) -> None:
    error = backend.error("GET", f"/workspaces/{done}/jobs/last/logs?trial=4", 404, "not_found")
    assert "0 to 3" in error["hint"]


def test_models_bit_for_bit(backend: Backend, done: str) -> None:
    trials = backend.call("GET", f"/workspaces/{done}/jobs/last")["trials"]
    best = trials[0]
    path = f"/workspaces/{done}/jobs/last/archive?what=model"
    every = unpacked(backend.request("GET", path))
    assert {name.partition("/")[0] for name in every} == {
        t["model"] for t in trials if t["state"] == "success"
    }
    one = unpacked(backend.request("GET", f"{path}&model={best['model']}"))
    assert one == {
        f"{best['model']}/data.txt": (b"alpha\n", 0o644),
        f"{best['model']}/metrics.json": (b'{"accuracy": 0.5, "nested": {"loss": 1}}\n', 0o644),
    }
    assert unpacked(backend.request("GET", f"{path}&model={best['model'][:-2]}")) == one
    backend.error("GET", f"{path}&model=nope", 404, "no_such_model")
    failed = next(t for t in trials if t["state"] == "failed")
    error = backend.error("GET", f"{path}&model={failed['model']}", 404, "no_such_model")
    assert error["message"].endswith("its trial failed, or wrote no files")
    error = backend.error("GET", f"{path}&model={best['model'][:6]}", 409, "ambiguous")
    assert best["model"] in error["fields"]["candidates"]


def test_code_and_data_come_back_as_they_were(backend: Backend, done: str) -> None:
    path = f"/workspaces/{done}/jobs/last/archive"
    code = unpacked(backend.request("GET", f"{path}?what=code"))
    modes = {"train": 0o755}
    assert code == {f"little/{name}": (content, modes.get(name, 0o644)) for name, content in SOURCE.items()}
    data = unpacked(backend.request("GET", f"{path}?what=data"))
    assert data == {f"letters/{name}": (content, 0o644) for name, content in DATA.items()}


def test_a_job_that_only_built(backend: Backend, workspace: str) -> None:
    backend.deploy(workspace, source=backend.put(workspace, "source", SOURCE))
    path = f"/workspaces/{workspace}/jobs/last/archive"
    backend.wait(workspace)
    backend.error("GET", f"{path}?what=model", 404, "no_such_model")
    backend.error("GET", f"{path}?what=data", 404, "no_bundle")
    assert logs(backend, workspace)[-1]["state"] == "success"


ODD = {
    "surrogate": r'{"\ud800": 1, "accuracy": 0.5}',
    "nan": '{"accuracy": NaN, "loss": 1}',
    "inf": '{"accuracy": Infinity}',
    "digits": '{"accuracy": 0.25, "n": ' + "9" * 5000 + "}",
    "deep": '{"x": ' * 3000 + "1" + "}" * 3000,
    "broken": '{"accuracy": ',
}


def test_odd_metrics_cost_one_trial_that_metric_and_a_note(backend: Backend, workspace: str) -> None:
    kinds = "".join(
        f"""*'"{kind}"'*) printf '%s' '{text}' > "$1/metrics.json";;\n""" for kind, text in ODD.items()
    )
    train = f'#!/bin/sh\ncase $(cat "$KAOS_PARAMS") in\n{kinds}esac\n'
    source = backend.put(workspace, "source", {**SOURCE, "train": train.encode()})
    backend.deploy(
        workspace, source=source, data=backend.put(workspace, "data", DATA), hyper={"kind": list(ODD)}
    )
    job = backend.wait(workspace)
    assert job["state"] == "success"
    trials = {trial["params"]["kind"]: trial for trial in job["trials"]}
    assert {kind: trial["metrics"] for kind, trial in trials.items()} == {
        "surrogate": {"accuracy": 0.5},
        "nan": {"accuracy": "NaN", "loss": 1},
        "inf": {"accuracy": "Infinity"},
        "digits": {"accuracy": 0.25},
        "deep": {},
        "broken": {},
    }
    noted = {kind: trial["notes"] for kind, trial in trials.items() if trial["notes"]}
    assert set(noted) == {"surrogate", "digits", "deep", "broken"}
    assert noted["surrogate"] == [r'metrics.json: "\ud800" is no valid Unicode text']
    for order in ("asc", "desc"):
        path = f"/workspaces/{workspace}/jobs/last?sort_by=accuracy&order={order}"
        ordered = [trial["params"]["kind"] for trial in backend.call("GET", path)["trials"]]
        assert set(ordered[:2]) == {"surrogate", "digits"}
        assert ordered[2:4] == ["inf", "nan"]


def test_text_that_no_protocol_can_carry_is_refused_on_the_way_in(backend: Backend, workspace: str) -> None:
    deploys = f"/workspaces/{workspace}/deploys"
    for path, body, code in (
        ("/workspaces", r'{"name": "x", "description": "\ud800"}', "invalid_request"),
        (deploys, r'{"hyper": {"\ud800": 1}}', "invalid_request"),
        (deploys, r'{"hyper": {"a": "\udfff"}}', "invalid_request"),
        (deploys, r'{"resources": {"memory": "' + "9" * 5000 + '"}}', "invalid_resources"),
        (deploys, r'{"author": "\ud800"}', "invalid_request"),
    ):
        headers = {"Content-Type": "application/json"}
        backend.error("POST", path, 400, code, data=body, headers=headers)


SLOW = TRAIN + b"echo started; exec sleep 60\n"


@pytest.fixture
def running(backend: Backend, workspace: str) -> Iterator[str]:
    """A workspace whose one trial runs until it is stopped."""
    source = backend.put(workspace, "source", {**SOURCE, "train": SLOW})
    backend.deploy(workspace, source=source, data=backend.put(workspace, "data", DATA), hyper={"lr": [0.5]})
    eventually(lambda: any(line.get("text") == "started" for line in logs(backend, workspace)))
    yield workspace
    # Stops it, where a test has not.
    backend.call("DELETE", f"/workspaces/{workspace}")


@contextlib.contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """A log that fails whoever opens it."""
    aside = path.rename(path.with_suffix(".aside"))
    path.mkdir()
    try:
        yield
    finally:
        path.rmdir()
        aside.rename(path)


def test_one_trials_log_is_read_without_the_others(backend: Backend, workspace: str) -> None:
    train = b'#!/bin/sh\ncat "$KAOS_PARAMS"; grep -q slow "$KAOS_PARAMS" && exec sleep 60\nexit 0\n'
    source = backend.put(workspace, "source", {**SOURCE, "train": train})
    data, hyper = backend.put(workspace, "data", DATA), {"kind": ["a-quick", "b-slow"]}
    job = backend.deploy(workspace, source=source, data=data, hyper=hyper, resources={"cpu": 0.1})["job"]
    said = [['{"kind":"a-quick"}'], ['{"kind":"b-slow"}']]

    def texts(number: int, query: str = "") -> list[object]:
        found = logs(backend, workspace, f"?trial={number}{query}")
        return [line["text"] for line in found[:-1] if line["user"]]

    def states() -> list[str]:
        found = backend.call("GET", f"/workspaces/{workspace}/jobs/last")["trials"]
        return [trial["state"] for trial in sorted(found, key=lambda t: t["trial"])]

    eventually(lambda: states() == ["success", "running"] and [texts(0), texts(1)] == said)
    written = {path: path.read_bytes() for path in backend.home.glob(f"engine/logs/*/train/{job}/*.log")}
    (quick,) = (path for path, content in written.items() if b"a-quick" in content)
    (slow,) = (path for path, content in written.items() if b"b-slow" in content)
    for state in ("running", "killed"):
        if state == "killed":
            backend.call("POST", f"/workspaces/{workspace}/jobs/last/stop")
            assert backend.wait(workspace)["state"] == state
        with unreadable(slow):
            assert texts(0) == texts(0, "&tail=3") == said[0]
        with unreadable(quick):
            assert texts(1) == texts(1, "&tail=3") == said[1]


@pytest.mark.parametrize("removed", [False, True])
def test_following_until_the_job_ends(backend: Backend, running: str, removed: bool) -> None:
    seen: list[dict[str, Any]] = []
    path = f"{backend.url}/workspaces/{running}/jobs/last/logs?follow=true"

    def follow() -> None:
        headers = {"Authorization": f"Bearer {backend.token}"}
        with requests.get(path, headers=headers, stream=True, timeout=30) as response:
            for line in response.iter_lines(chunk_size=1):
                seen.extend(lines(line.decode()))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    eventually(lambda: any(line.get("text") == "started" for line in seen))
    assert not any("end" in line for line in seen)
    started = next(line for line in seen if line.get("text") == "started")
    assert (started["stage"], started["trial"]) == ("train", 0)
    trial = backend.call("GET", f"/workspaces/{running}/jobs/last")["trials"][0]
    assert trial["state"] == "running"
    assert trial["started"]
    if removed:
        backend.call("DELETE", f"/workspaces/{running}")
        backend.workspace(running)
    else:
        backend.call("POST", f"/workspaces/{running}/jobs/last/stop")
    thread.join(20)
    assert not thread.is_alive()
    if removed:
        assert (seen[-1]["state"], seen[-1]["error"]["code"]) == (None, "no_such_job")
    else:
        assert seen[-1] == {"end": True, "state": "killed", "reason": "stopped by the user"}


def test_a_follower_that_goes_away_frees_its_thread(backend: Backend, running: str) -> None:
    path = f"{backend.url}/workspaces/{running}/jobs/last/logs?follow=true"
    headers = {"Authorization": f"Bearer {backend.token}"}

    def streams() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name == "json-lines"]

    response = requests.get(path, headers=headers, stream=True, timeout=30)
    received = response.iter_lines(chunk_size=1)
    assert next(received)
    assert streams()
    response.close()
    eventually(lambda: not streams())


def test_the_tail_of_a_running_trial(backend: Backend, running: str) -> None:
    found = logs(backend, running, "?trial=0&tail=1")
    assert [line["text"] for line in found[:-1]] == ["started"]
    assert found[-1]["state"] == "running"
