"""`kill -9` at many moments of a grid: nothing acknowledged is lost, nothing finished runs twice."""

from __future__ import annotations

import contextlib
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import write_data, write_grid, write_source
from tests.support.gate import Gate
from tests.support.home import Home
from tests.support.waiting import eventually

VICTIMS = [("engine",), ("backend",), ("backend", "engine")]
TRIALS = 10
LEAST_KILLS, MOST_KILLS = 4, 6
# The kills of deploys are spread evenly over about what one takes.
ROUNDS, DEPLOY_S = 4, 0.55


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Home]:
    kaos = Home(tmp_path / "home", env={"KAOS_ENGINE_CPUS": "2"})
    yield kaos
    kaos.down()


def finished(job: Any) -> dict[str, float]:
    return {
        t["model"]: t["metrics"]["stamp"]
        for t in job["trials"]
        if t["state"] in ("success", "skipped") and "stamp" in t["metrics"]
    }


def wait_for(home: Home, job_id: str, trials: int) -> dict[str, float]:
    def enough() -> dict[str, float] | None:
        done = finished(home.json("train", "info", job_id))
        return done if len(done) >= trials else None

    return dict(eventually(enough, f"{trials} trials done"))


@pytest.mark.parametrize("victims", VICTIMS, ids="+".join)
def test_a_grid_survives_kills_at_many_points(
    mortal: Home, tmp_path: Path, victims: tuple[str, ...], gate: Gate
) -> None:
    # The last one ends when there were enough kills, however slowly who was killed comes back.
    wait = f"{gate.wait} if params['x'] == {TRIALS - 1} else time.sleep(0.2)".replace("import socket; ", "")
    src = write_source(tmp_path / "src", body=f"import socket; {wait}")
    data = write_data(tmp_path / "data")
    grid = write_grid(tmp_path / "grid.json", {"x": list(range(TRIALS))})
    job_id = mortal.json("train", "deploy", "-s", src, "-d", data, "-h", grid)["job"]
    dice = random.Random(0)
    seen: dict[str, float] = {}
    kills = 0
    while True:
        job = mortal.json("train", "info", job_id)
        now = finished(job)
        assert {model: now.get(model) for model in seen} == seen, "a finished trial was lost or ran again"
        seen = now
        if job["state"] not in ("waiting", "running"):
            break
        if kills < MOST_KILLS:
            goal = min(TRIALS - 1, len(seen) + dice.choice([0, 1]))
            if goal > len(seen):
                seen = wait_for(mortal, job_id, goal)
            for victim in victims:
                mortal.kill(victim)
            kills += 1
        if kills >= LEAST_KILLS:
            gate.open()
    assert job["state"] == "success", job
    assert len(seen) == TRIALS
    assert len(mortal.json("train", "list")["jobs"]) == 1


def test_following_a_log_survives_the_engine(mortal: Home, tmp_path: Path, gate: Gate) -> None:
    src = write_source(tmp_path / "src", body=gate.wait)
    mortal.run("train", "deploy", "-s", src, "-d", write_data(tmp_path / "data"))
    following = mortal.spawn("train", "logs", "-f")
    assert following.stdout is not None
    assert any("training" in line for line in following.stdout)
    mortal.kill("engine")
    gate.open()
    rest, told = following.communicate(timeout=60)
    assert following.returncode == 0, told
    assert "trained" in rest


def test_a_deploy_that_is_killed_lands_whole_or_not_at_all(mortal: Home, tmp_path: Path) -> None:
    """Kills while bundles are on their way; afterwards the same deploy lands, once and whole."""
    src = write_source(tmp_path / "src")
    data = write_data(tmp_path / "data", {f"f{i}": bytes([i]) * 200_000 for i in range(64)})
    dice = random.Random(1)
    mortal.run("status")
    for round_ in range(ROUNDS):
        (data / "round").write_text(str(round_))
        deploying = mortal.spawn("train", "deploy", "-s", src, "-d", data)
        with contextlib.suppress(subprocess.TimeoutExpired):
            deploying.wait(timeout=0.05 + DEPLOY_S * (round_ + dice.random()) / ROUNDS)
        for victim in dice.choice(VICTIMS):
            mortal.kill(victim)
        deploying.communicate(timeout=60)
        answer = mortal.json("train", "deploy", "-s", src, "-d", data, "--wait")
        assert answer["status"] in ("started", "unchanged")
        job = mortal.json("train", "info", answer["job"])
        assert job["state"] == "success", job
        out = tmp_path / f"out{round_}"
        mortal.run("train", "get", "--data", "-o", out)
        assert len(list(out.rglob("f*"))) >= 64
        assert next(out.rglob("round")).read_text() == str(round_)
