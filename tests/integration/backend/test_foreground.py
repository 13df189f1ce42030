"""Commands that somebody waits for: a trial in the foreground, a shell where one was."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.backend import DATA, LIMITS, SOURCE, Backend, running_backend
from tests.support.waiting import eventually

TRAIN = b"""#!/bin/sh
echo "lr $(cat "$KAOS_PARAMS") in $(ls "$KAOS_DATA_DIR")"
echo half > "$1/half"
grep -q wait "$KAOS_PARAMS" && sleep 600
exit 3
"""


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    limits = replace(LIMITS, foreground=1, queue_s=0.05)
    with running_backend(tmp_path_factory.mktemp("home"), limits) as running:
        yield running


@pytest.fixture
def trained(backend: Backend, workspace: str) -> str:
    """A workspace with a job whose only trial has failed."""
    source = backend.put(workspace, "source", {**SOURCE, "train": TRAIN})
    backend.deploy(workspace, source=source, data=backend.put(workspace, "data", DATA))
    assert backend.wait(workspace)["state"] == "failed"
    return workspace


class Stream:
    """The lines of a command, as they come."""

    def __init__(self, backend: Backend, path: str, body: Any) -> None:
        self._response = backend.request("POST", path, json=body, stream=True)
        assert self._response.status_code == 200, self._response.text
        self._lines = map(json.loads, self._response.iter_lines(chunk_size=1))
        self.name = next(self._lines)["session"]
        self.printed, self.end = b"", None
        self.notes: list[str] = []

    def until(self, text: bytes) -> None:
        """Reads on until a text was printed."""
        for line in self._lines:
            self.printed += b64decode(line.get("printed", ""))
            if text in self.printed:
                return
        raise AssertionError(f"{text!r} is not in {self.printed!r}")

    def ended(self) -> Any:
        """Reads all; the end."""
        for line in self._lines:
            if line.get("end"):
                return line
            self.printed += b64decode(line.get("printed", "")) if not line.get("stage") else b""
            self.notes += [line["note"]] if line.get("note") else []
        raise AssertionError("it has no end")

    def close(self) -> None:
        self._response.close()


def leaves_nothing(home: Path) -> None:
    eventually(lambda: not list((home / "engine" / "scratch" / "datums").iterdir()))


def shell(backend: Backend, workspace: str) -> Stream:
    size = {"rows": 30, "columns": 100, "term": "dumb"}
    return Stream(backend, f"/workspaces/{workspace}/jobs/last/trials/0/shell", size)


def type_(backend: Backend, stream: Stream, text: bytes, **more: int) -> None:
    body = {"typed": b64encode(text).decode(), **more}
    backend.call("POST", f"/foreground/{stream.name}", json=body)


def test_a_trial_in_the_foreground_is_tried_again(backend: Backend, workspace: str) -> None:
    # What it finds of an earlier try is what its worker keeps, not what that wrote.
    train = b'#!/bin/sh\nls "$1" | wc -l; echo x > "$1/half"; echo . >> tries; grep -c . tries | grep 2'
    asked = {
        "source": backend.put(workspace, "source", {**SOURCE, "train": train}),
        "data": backend.put(workspace, "data", DATA),
        "resources": {"tries": 3},
    }
    with closing(Stream(backend, f"/workspaces/{workspace}/run", asked)) as running:
        end = running.ended()
    assert (end["code"], running.printed.decode().split()) == (0, ["0", "0", "2"])
    assert running.notes == ["exit code 1; attempt 2 of 3"]


def test_a_trial_in_the_foreground_stores_nothing(backend: Backend, workspace: str) -> None:
    source = backend.put(workspace, "source", {**SOURCE, "train": TRAIN})
    data = backend.put(workspace, "data", DATA)
    asked = {"source": source, "data": data, "params": {"lr": 0.1}, "keep": True}
    with closing(Stream(backend, f"/workspaces/{workspace}/run", asked)) as running:
        end = running.ended()
    assert (end["code"], end["reason"]) == (3, "")
    assert b'lr {"lr":0.1} in a.txt' in running.printed
    assert backend.call("GET", f"/workspaces/{workspace}/jobs")["jobs"] == []
    assert backend.call("GET", f"/workspaces/{workspace}")["source"] is None
    leaves_nothing(backend.home)
    path = f"/workspaces/{workspace}/run"
    backend.error("POST", path, 404, "no_bundle", json={"params": {}})
    backend.error("POST", path, 400, "invalid_hyper", json={"params": {"lr": [1, 2]}})
    backend.error("POST", path, 422, "never_fits", json={**asked, "resources": {"cpu": 999}})


def test_nobody_listens_any_more_and_it_ends(backend: Backend, trained: str) -> None:
    running = Stream(backend, f"/workspaces/{trained}/run", {"params": {"wait": 1}})
    running.until(b"lr ")
    # It is no job, and has one of the places of the backend.
    assert backend.call("GET", "/status")["jobs"] == []
    error = backend.error("POST", f"/workspaces/{trained}/run", 503, "busy", json={})
    assert "commands in the foreground" in error["message"]
    running.close()
    leaves_nothing(backend.home)


def test_a_shell_where_a_trial_failed(backend: Backend, trained: str) -> None:
    with closing(shell(backend, trained)) as opened:
        opened.until(b"# ")
        type_(backend, opened, b"cat $KAOS_OUTPUT_DIR/half; ls $KAOS_DATA_DIR; stty size; echo rea''dy\n")
        opened.until(b"ready")
        assert b"half" in opened.printed
        assert b"a.txt" in opened.printed
        assert b"30 100" in opened.printed
        type_(backend, opened, b"stty size; exit 7\n", rows=10, columns=40)
        assert opened.ended()["code"] == 7
    assert b"10 40" in opened.printed
    leaves_nothing(backend.home)
    body = {"typed": ""}
    backend.error("POST", f"/foreground/{opened.name}", 404, "not_found", json=body)
    backend.error("POST", f"/foreground/{opened.name}", 400, "invalid_request", json={"typed": "%"})
    path = f"/workspaces/{trained}/jobs/last/trials/9/shell"
    backend.error("POST", path, 404, "not_found", json={})


def test_a_shell_counts_as_a_trial_does_and_can_be_ended(backend: Backend, trained: str) -> None:
    cpus = backend.call("GET", "/status")["machine"]["cpus"]
    backend.deploy(trained, resources={"cpu": cpus})
    backend.wait(trained)
    with closing(shell(backend, trained)) as opened:
        opened.until(b"# ")
        backend.deploy(trained, hyper={"lr": [0.5]})
        path = f"/workspaces/{trained}/jobs/last"
        eventually(lambda: "in use by job" in backend.call("GET", path)["reason"])
        backend.call("POST", f"/foreground/{opened.name}", json={"end": True})
    assert backend.wait(trained)["state"] == "failed"
    leaves_nothing(backend.home)
