"""What a person does around a run: follow a log, press Ctrl-C, ask for status, stop and come back."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import psutil

from tests.support.bundles import write_grid, write_source
from tests.support.gate import Gate
from tests.support.home import Home, alive
from tests.support.waiting import eventually


def test_follow_shows_lines_while_the_trial_runs_and_ends_with_it(
    home: Home, workspace: str, tmp_path: Path, data: Path, gate: Gate
) -> None:
    home.run(
        "train", "deploy", "-w", workspace, "-s", write_source(tmp_path / "src", body=gate.wait), "-d", data
    )
    following = home.spawn("train", "logs", "-w", workspace, "-f")
    assert following.stdout is not None
    seen = []
    for line in following.stdout:
        seen.append(line)
        if "training" in line:
            gate.open()
            break
    rest, _ = following.communicate(timeout=60)
    assert following.returncode == 0
    assert "trained" in rest


def test_ctrl_c_detaches_and_kills_nothing(
    home: Home, workspace: str, tmp_path: Path, data: Path, gate: Gate
) -> None:
    src = write_source(tmp_path / "src", body=gate.wait)
    waiting = home.spawn("train", "deploy", "-w", workspace, "-s", src, "-d", data, "--wait")
    eventually(
        lambda: (
            (jobs := home.json("train", "list", "-w", workspace)["jobs"])
            and jobs[0]["stages"][-1]["state"] == "running"
        ),
        "training",
    )
    waiting.send_signal(signal.SIGINT)
    _, told = waiting.communicate(timeout=30)
    assert waiting.returncode == 130
    # The build has ended well, whatever training does: so does following it.
    home.run("train", "logs", "-w", workspace, "--build", "-f")
    assert "kaos train" in told
    assert home.json("train", "list", "-w", workspace)["jobs"][0]["stages"][-1]["state"] == "running"
    gate.open()
    home.run("train", "logs", "-w", workspace, "-f")
    assert home.json("train", "info", "-w", workspace)["state"] == "success"


def test_a_deploy_waits_for_the_job_that_it_would_stop(
    home: Home, workspace: str, tmp_path: Path, data: Path, gate: Gate
) -> None:
    src = write_source(tmp_path / "src", body=gate.wait)
    first = home.json("train", "deploy", "-w", workspace, "-s", src, "-d", data)["job"]
    deploy = ["train", "deploy", "-w", workspace, "-s", write_source(tmp_path / "other", body="print('new')")]
    refused = home.run(*deploy, check=False)
    assert refused.returncode == 1
    assert f"job {first[:8]} has not ended" in refused.stderr
    assert "--after" in refused.stderr
    assert "--replace" in refused.stderr
    waiting = home.spawn(*deploy, "--after", "--wait")
    try:
        assert waiting.stderr is not None
        assert f"waiting for the end of job {first[:8]}" in waiting.stderr.readline()
        assert len(home.json("train", "list", "-w", workspace)["jobs"]) == 1
        gate.open()
        out, err = waiting.communicate(timeout=120)
    finally:
        waiting.kill()
    assert waiting.returncode == 0, err
    newest, oldest = home.json("train", "list", "-w", workspace)["jobs"]
    assert (oldest["id"], oldest["state"]) == (first, "success")
    assert newest["id"] in out


def test_stop_ends_the_trial_but_keeps_what_was_finished(
    home: Home, workspace: str, tmp_path: Path, data: Path, gate: Gate
) -> None:
    grid = write_grid(tmp_path / "grid.json", {"x": [1, 2]})
    src = write_source(tmp_path / "src", body=f"if params['x'] == 2: {gate.wait}")
    job = home.json("train", "deploy", "-w", workspace, "-s", src, "-d", data, "-h", grid)["job"]
    done = eventually(
        lambda: [
            t for t in home.json("train", "info", job, "-w", workspace)["trials"] if t["state"] == "success"
        ],
        "first trial done",
    )
    home.run("train", "stop", job, "-w", workspace)
    stopped = home.json("train", "info", job, "-w", workspace)
    assert stopped["state"] == "killed"
    interrupted = next(t["trial"] for t in stopped["trials"] if t["params"]["x"] == 2)
    log = home.run("train", "logs", job, "-w", workspace, "--trial", str(interrupted)).stdout
    assert "training" in log
    gate.open()
    again = home.json("train", "deploy", "-w", workspace, "-s", src, "-d", data, "-h", grid, "--wait")
    assert again["status"] == "started"
    trials = {t["model"]: t for t in home.json("train", "info", "-w", workspace)["trials"]}
    assert trials[done[0]["model"]]["metrics"]["stamp"] == done[0]["metrics"]["stamp"]


def test_up_status_down_and_up_again(tmp_path: Path) -> None:
    kaos = Home(tmp_path / "home")
    try:
        kaos.run("up")
        status = kaos.json("status")
        assert status["runtime"]["name"] == "process"
        pids = [kaos.pid("backend"), kaos.pid("engine")]
        kaos.run("up")
        assert [kaos.pid("backend"), kaos.pid("engine")] == pids
        exports = kaos.run("status", "--env").stdout
        assert all(line.startswith("export ") for line in exports.splitlines())
        kaos.run("down")
        for pid in pids:
            eventually(lambda pid=pid: not alive(pid), f"{pid} gone")
        kaos.run("down")
        assert kaos.json("workspace", "list")["workspaces"][0]["name"] == "default"
    finally:
        kaos.down()


def test_who_waits_does_not_start_what_was_stopped(tmp_path: Path, data: Path, gate: Gate) -> None:
    kaos = Home(tmp_path / "home")
    try:
        bundles = ["-s", str(write_source(tmp_path / "src", body=gate.wait)), "-d", str(data)]
        job = kaos.json("train", "deploy", *bundles)["job"]
        eventually(lambda: kaos.json("train", "info")["stages"][-1]["state"] == "running", "training")
        waiting = [["deploy", *bundles, "--wait"], ["wait", job], ["logs", "-f", job]]
        clients = [kaos.spawn("train", *arguments) for arguments in waiting]
        for client, arguments in zip(clients, waiting, strict=True):
            if "wait" in arguments:
                eventually(lambda pid=client.pid: psutil.Process(pid).net_connections("all"), "a connection")
            else:
                # It has said which bundle it deploys, or shown a line of the log.
                assert client.stdout is not None
                client.stdout.readline()
        assert f"{job[:8]}  running  default" in kaos.run("status").stdout
        assert f"job {job[:8]} in default, running, goes on" in kaos.run("down").stdout
        for client in clients:
            _, told = client.communicate(timeout=60)
            assert client.returncode == 4, told
            assert "stopped (kaos down)" in told
            assert f"job {job[:8]} goes on when they are started again" in told
            assert f"kaos train stop {job[:8]}" in told
            assert "Traceback" not in told
        assert not kaos.json("status")["up"]
        gate.open()
        kaos.run("train", "wait", job)
    finally:
        kaos.down()


def test_what_waits_is_told_everywhere(tmp_path: Path, data: Path, gate: Gate) -> None:
    kaos = Home(tmp_path / "home", env={"KAOS_ENGINE_CPUS": "1"})
    try:
        src = write_source(tmp_path / "src", body=gate.wait)
        grid = write_grid(tmp_path / "grid.json", {"x": [1, 2]})
        first = kaos.json("train", "deploy", "-s", src, "-d", data, "-h", grid, "--cpu", "1")["job"]
        trials = eventually(
            lambda: (
                (found := kaos.json("train", "info")["trials"])
                and {t["state"] for t in found} == {"running", "waiting"}
                # The job's reason and its trials are read one after the other.
                and any((t["reason"] or "").startswith("1 trial waits for ") for t in found)
                and found
            ),
            "one runs, the other says why it waits",
        )
        waiting = next(t for t in trials if t["state"] == "waiting")
        silent = kaos.run("train", "logs", "--trial", str(waiting["trial"]), check=False)
        assert (silent.returncode, silent.stdout) == (1, "")
        assert f"trial {waiting['trial']} is waiting: {waiting['reason']}" in silent.stderr
        kaos.run("workspace", "create", "other")
        second = kaos.json("train", "deploy", "-w", "other", "-s", src, "-d", data, "--cpu", "1")["job"]
        eventually(lambda: kaos.json("train", "info", "-w", "other")["reason"], "why the second waits")
        jobs = {job["id"]: job for job in kaos.json("status")["jobs"]}
        assert [jobs[first]["state"], jobs[second]["state"]] == ["running", "waiting"]
        assert jobs[second]["reason"]
        assert jobs[second]["reason"] in " ".join(kaos.run("status").stdout.split())
        follow = ["train", "logs", "-w", "other", "-f", "--timeout", "1s"]
        assert f"waiting: {jobs[second]['reason']}\n" in kaos.run(*follow, check=False).stderr
        kaos.run("train", "stop", first)
        killed = kaos.json("train", "info", first)
        assert {trial["state"] for trial in killed["trials"]} == {"killed"}
        gate.open()
        kaos.run("train", "wait", second, "-w", "other")
        assert kaos.json("status")["jobs"] == []
    finally:
        kaos.down()


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        kaos = Home(tmp_path / "home", env={"KAOS_PORT": str(port)})
        try:
            done = kaos.run("up", check=False)
            assert done.returncode == 4
            assert str(port) in done.stderr
            assert "Traceback" not in done.stderr
        finally:
            kaos.down()


def test_a_backend_of_another_version_is_told(tmp_path: Path) -> None:
    kaos = Home(tmp_path / "home")
    try:
        kaos.run("up")
        state = kaos.path / "backend.json"
        state.write_text(json.dumps(json.loads(state.read_text()) | {"version": "0.0.1"}))
        done = kaos.run("train", "list", check=False)
        assert done.returncode == 4
        assert "0.0.1" in done.stderr
        assert "kaos down" in done.stderr
    finally:
        kaos.down()
