"""Every exit code of the table in docs/cli.md as a script sees it: real processes, JSON with a version."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from kaos_cli.errors import EXIT_CODES, MEANINGS
from tests.support.bundles import write_source
from tests.support.gate import Gate
from tests.support.home import Home
from tests.support.waiting import eventually

Run = Callable[..., None]


def answer(done: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    """What a program reads from stdout: one object, or one a line."""
    try:
        values = [json.loads(done.stdout)]
    except ValueError:
        values = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(value["version"] == 1 for value in values), done.stdout
    return values


def check(done: subprocess.CompletedProcess[str], exits: int, code: str | None = None) -> None:
    """``code`` is the error's; None: no error, the answer itself tells."""
    assert done.returncode == exits, done.stdout + done.stderr
    assert exits in MEANINGS
    if code is None:
        assert answer(done)
        return
    error = json.loads(done.stderr)
    assert error["version"] == 1
    assert error["error"]["code"] == code
    assert error["error"]["message"]
    assert EXIT_CODES[code] == exits


@pytest.fixture
def kaos(home: Home, workspace: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        given = [*arguments, "--json"]
        return home.run(*given, check=False, env={"KAOS_WORKSPACE": workspace, **env})

    return run


Kaos = Callable[..., subprocess.CompletedProcess[str]]


def test_0_done(kaos: Kaos, src: Path, data: Path, tmp_path: Path) -> None:
    check(kaos("train", "list"), 0)
    check(kaos("train", "deploy", "-s", src, "-d", data, "--wait"), 0)
    for arguments in (
        ["train", "list"], ["train", "info"], ["train", "wait"], ["train", "logs"], ["train", "logs", "-f"],
        ["train", "get", "-o", tmp_path / "out"], ["train", "stop"], ["workspace", "list"],
        ["workspace", "info"],
        ["template", "list"], ["template", "get", "mnist", "-o", tmp_path / "mnist"], ["status"],
        ["status", "--env"], ["up"], ["train", "deploy", "-d", data],
    ):  # fmt: skip
        check(kaos(*arguments), 0)


def test_1_a_trial_failed(kaos: Kaos, tmp_path: Path, data: Path) -> None:
    src = write_source(tmp_path / "src", body="sys.exit(3)")
    check(kaos("train", "deploy", "-s", src, "-d", data, "--wait"), 1)
    check(kaos("train", "wait"), 1)
    check(kaos("train", "logs", "-f"), 1)
    # Nothing went wrong in telling how it went.
    check(kaos("train", "info"), 0)
    check(kaos("train", "logs"), 0)
    check(kaos("train", "get", "-o", tmp_path / "out"), 1, "failed")


def test_2_wrong_use_or_invalid_input(kaos: Kaos, tmp_path: Path, data: Path) -> None:
    check(kaos("train", "deploy"), 2, "usage")
    check(kaos("train", "frobnicate"), 2, "usage")
    check(kaos("train", "wait", "--timeout", "soon"), 2, "usage")
    check(kaos("train", "deploy", "-d", data, "--wait-timeout", "1m"), 2, "usage")
    check(kaos("train", "logs", "--timeout", "1m"), 2, "usage")
    check(kaos("train", "deploy", "-d", tmp_path / "nowhere"), 2, "invalid_bundle")
    check(kaos("train", "deploy", "--gpu", "-1"), 2, "invalid_resources")
    check(kaos("workspace", "create", "default"), 2, "exists")


def test_3_no_such_thing(kaos: Kaos, src: Path, data: Path) -> None:
    check(kaos("train", "info", "deadbeef"), 3, "no_such_job")
    check(kaos("train", "wait", "deadbeef"), 3, "no_such_job")
    check(kaos("train", "logs", "-f"), 3, "no_such_job")
    check(kaos("train", "info", "-w", "nowhere"), 3, "no_such_workspace")
    check(kaos("template", "get", "nowhere"), 3, "no_such_template")
    check(kaos("train", "deploy", "-s", src, "-d", data, "--wait"), 0)
    check(kaos("train", "logs", "--trial", "9"), 3, "not_found")
    check(kaos("train", "get", "--model", "9"), 3, "no_such_model")
    check(kaos("train", "info", "--sort-by", "beauty"), 3, "no_such_metric")


def test_4_out_of_reach(kaos: Kaos, home: Home) -> None:
    nobody = {"KAOS_ENDPOINT": "http://127.0.0.1:9", "KAOS_TOKEN": "x"}
    check(kaos("train", "list", **nobody), 4, "backend_unavailable")
    url = json.loads((home.path / "backend.json").read_text())["url"]
    check(kaos("train", "list", KAOS_ENDPOINT=url, KAOS_TOKEN="x"), 4, "unauthorized")


def test_4_the_engine_cannot_be_brought_back(tmp_path: Path) -> None:
    broken = Home(tmp_path / "home")
    try:
        broken.run("up")
        broken.kill("engine")
        for file in broken.path.glob("engine/engine.sqlite*"):
            file.write_bytes(b"no database\n" * 1000)
        check(broken.run("train", "list", "--json", check=False), 4, "engine_unavailable")
    finally:
        broken.down()


@pytest.fixture
def held(home: Home, workspace: str, tmp_path: Path, data: Path, gate: Gate) -> Iterator[list[str | Path]]:
    """A job that trains until the test ends; the arguments that deploy it, and find it the next time."""
    deploy = ["train", "deploy", "-s", write_source(tmp_path / "src", body=gate.wait), "-d", data]
    job = home.json(*deploy, "-w", workspace)["job"]
    eventually(
        lambda: home.json("train", "info", job, "-w", workspace)["stages"][-1]["state"] == "running",
        "training",
    )
    yield deploy
    assert home.json("train", "info", job, "-w", workspace)["stages"][-1]["state"] == "running"


def test_124_the_time_limit_of_the_command(kaos: Kaos, held: list[str | Path]) -> None:
    for arguments in (
        [*held, "--wait", "--wait-timeout"],
        ["train", "wait", "--timeout"],
        ["train", "logs", "-f", "--timeout"],
    ):
        check(kaos(*arguments, "0.5s"), 124, "timed_out")


def test_130_interrupted(home: Home, workspace: str, held: list[str | Path]) -> None:
    job = home.json("train", "list", "-w", workspace)["jobs"][0]["id"]
    for arguments in (["train", "wait", job], ["train", "logs", "-f"]):
        watching = home.spawn(*arguments, "-w", workspace, "--json")
        # It has read what the trial said, so it is past its start.
        if "logs" in arguments:
            assert watching.stdout is not None
            watching.stdout.readline()
        else:
            eventually(lambda watching=watching: asks(watching.pid), "a request")
        watching.send_signal(signal.SIGINT)
        _, told = watching.communicate(timeout=60)
        assert watching.returncode == 130
        error = json.loads(told)["error"]
        assert error["code"] == "interrupted"
        assert error["fields"]["jobs"] == [job]
        assert f"kaos train stop {job[:8]}" in error["hint"]


def asks(pid: int) -> bool:
    """Whether a command line has a connection: it is past its start, and inside what it does."""
    return bool(psutil.Process(pid).net_connections("all"))


def test_every_code_has_a_test_here() -> None:
    tested = {int(name.split("_")[1]) for name in globals() if name.startswith("test_") and name[5].isdigit()}
    assert tested == MEANINGS.keys()
