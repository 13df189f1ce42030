"""The soak's own judgement: it must see what it is there for."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from bench.soak.__main__ import grown
from bench.soak.client import BAD, Client, Deployed, Workspace
from bench.soak.home import Answer, Home, Sample, Violation


class Told(Home):
    """A home whose every answer is the same."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def ask(self, *args: str | Path, fine: tuple[str, ...] = (), again: tuple[str, ...] = ()) -> Answer:
        return Answer(0, self.value, "", "")


def trial(x: int, state: str = "success", stamp: int = 1) -> dict[str, Any]:
    return {
        "params": {"x": x},
        "state": state,
        "model": f"m{x}",
        "reason": "",
        "metrics": {"x": x, "stamp": stamp} if state == "success" else {},
    }


def job(*trials: dict[str, Any]) -> dict[str, Any]:
    return {"id": "j", "finished": "now", "state": "success", "reason": "", "trials": list(trials)}


def look(found: Any, wanted: Deployed, tmp_path: Path) -> None:
    client = Client(0, Told(found), tmp_path, 0)
    client.look(Workspace("w", jobs={"j": wanted}, stamps={("plain", "m1"): 1}), "j")


def test_a_job_that_came_to_what_was_promised(tmp_path: Path) -> None:
    look(job(trial(1), trial(BAD, "failed")), Deployed([1, BAD], "d"), tmp_path)
    look(job(trial(1), trial(2, "killed")), Deployed([1, 2], "d", may_be_killed=True), tmp_path)
    look(job(trial(1), trial(2, "killed")), Deployed([1, 2], "d", stopped={2}), tmp_path)
    look(job(trial(1, stamp=2)), Deployed([1], "d", flavour="mint"), tmp_path)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(job(trial(1)), id="a trial is lost"),
        pytest.param(job(trial(1), trial(2), trial(2)), id="a trial is doubled"),
        pytest.param(job(trial(1, stamp=2), trial(2)), id="a trial was trained again"),
        pytest.param(job(trial(1), trial(2, "failed")), id="a trial failed"),
        pytest.param(job(trial(1), trial(2, "killed")), id="a trial was killed for no reason"),
        pytest.param(job(trial(1), trial(2)) | {"id": "other"}, id="another job"),
    ],
)
def test_what_must_never_happen(found: Any, tmp_path: Path) -> None:
    with pytest.raises(Violation):
        look(found, Deployed([1, 2], "d"), tmp_path)


class Paused(Home):
    """Has one job, with whatever points are deployed, all of them in one state."""

    def __init__(self, workspace: Workspace, state: str) -> None:
        self.mark, self._workspace, self._state = "soak", workspace, state

    def ask(self, *args: str | Path, fine: tuple[str, ...] = (), again: tuple[str, ...] = ()) -> Answer:
        trials = [trial(x, self._state) for x in self._workspace.points]
        found = job(*trials) | {"finished": None}
        return Answer(0, {"status": "started", "job": "j"} if "deploy" in args else found, "", "")


@pytest.mark.parametrize(("state", "fine"), [("waiting", True), ("skipped", True), ("running", False)])
def test_nothing_begins_in_a_pause(state: str, fine: bool, tmp_path: Path) -> None:
    workspace = Workspace("w")
    client = Client(0, Paused(workspace, state), tmp_path, 0)
    with nullcontext() if fine else pytest.raises(Violation, match="is paused"):
        client.pause(workspace)


def test_growth() -> None:
    before = Sample(100 << 20, 20, 10)
    assert grown("engine", [before, Sample(120 << 20, 22, 12)]) == []
    assert len(grown("engine", [before, Sample(200 << 20, 60, 60)])) == 3
    assert grown("engine", [before])
