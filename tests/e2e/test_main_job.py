"""The main job through the command line: what runs, what does not run again, and what comes back."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import DOCKERFILE, write_data, write_grid, write_original, write_source
from tests.support.home import Home


def deploy(home: Home, ws: str, *args: str | Path, check: bool = True) -> Any:
    return home.json("train", "deploy", "-w", ws, *args, "--wait", check=check)


def info(home: Home, ws: str, job: str = "last") -> Any:
    return home.json("train", "info", job, "-w", ws)


def stamps(home: Home, ws: str) -> dict[str, float]:
    """Model id -> the moment its trial was executed: equal stamps are one execution."""
    return {t["model"]: t["metrics"]["stamp"] for t in info(home, ws)["trials"] if t["metrics"]}


def test_each_trial_runs_once_and_never_again(
    home: Home, workspace: str, src: Path, data: Path, tmp_path: Path
) -> None:
    grid = write_grid(tmp_path / "grid.json", {"x": [1, 2, 3], "fixed": "a"})
    first = deploy(home, workspace, "-s", src, "-d", data, "-h", grid)
    ran = stamps(home, workspace)
    assert len(ran) == 3

    again = deploy(home, workspace, "-s", src, "-d", data, "-h", grid)
    assert again["status"] == "unchanged"
    assert again["job"] == first["job"]
    assert len(home.json("train", "list", "-w", workspace)["jobs"]) == 1
    assert stamps(home, workspace) == ran

    write_grid(grid, {"x": [1, 2, 3, 4], "fixed": "a"})
    more = deploy(home, workspace, "-h", grid)
    assert more["stages"] == ["train"]
    grown = stamps(home, workspace)
    assert {model: grown[model] for model in ran} == ran
    assert len(grown) == 4
    train = info(home, workspace)["stages"][-1]
    assert (train["total"], train["processed"], train["skipped"]) == (4, 1, 3)

    (data / "a.txt").write_bytes(b"two\n")
    other_data = deploy(home, workspace, "-d", data)
    assert other_data["stages"] == ["train"]
    assert [s["name"] for s in info(home, workspace)["stages"]] == ["train"]
    retrained = stamps(home, workspace)
    assert len(retrained) == 4
    assert not set(retrained.values()) & set(grown.values())

    write_source(src, body="print('changed')")
    other_code = deploy(home, workspace, "-s", src)
    assert other_code["stages"] == ["build", "train"]
    rebuilt = stamps(home, workspace)
    assert len(rebuilt) == 4
    assert not set(rebuilt.values()) & set(retrained.values())
    last = info(home, workspace)
    assert last["inputs"]["data"]["id"] == other_data["data"]["id"]
    assert last["hyper"]["trials"] == 4


def test_a_bundle_of_the_original_kaos_runs_as_it_is(home: Home, workspace: str, tmp_path: Path) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bwrap is not installed: without a sandbox there is no /pfs")
    src = write_original(tmp_path / "src", "python:3")
    data = write_data(tmp_path / "data", {"one.txt": b"1", "two.txt": b"2"})
    deploy(home, workspace, "-s", src, "-d", data, "-h", write_grid(tmp_path / "grid.json", {"x": [1, 2]}))
    trials = info(home, workspace)["trials"]
    assert sorted(trial["metrics"]["x"] for trial in trials) == [1, 2]
    assert {trial["metrics"]["files"] for trial in trials} == {2}


def test_build_arguments_stay_until_others_are_given(
    home: Home, workspace: str, tmp_path: Path, data: Path
) -> None:
    dockerfile = "ARG PY=9\nFROM python:$PY\nWORKDIR /app\nARG MODE=plain\nENV MODE=$MODE\nCOPY . .\n"
    src = write_source(tmp_path / "src", "print('mode', os.environ['MODE'])", dockerfile)
    made = deploy(home, workspace, "-s", src, "-d", data, "--build-arg", "PY=3", "--build-arg", "MODE=b c")
    assert made["build_args"] == {"PY": "3", "MODE": "b c"}
    assert "mode b c" in home.run("train", "logs", "-w", workspace).stdout
    first = stamps(home, workspace)
    again = deploy(home, workspace, "-s", src)
    assert (again["status"], again["build_args"]) == ("unchanged", made["build_args"])

    other = deploy(home, workspace, "--build-arg", "PY=3")
    assert other["stages"] == ["build", "train"]
    assert "mode plain" in home.run("train", "logs", "-w", workspace).stdout
    assert stamps(home, workspace) != first
    assert "args    PY=3\n" in home.run("train", "info", "-w", workspace).stdout
    assert info(home, workspace, made["job"])["build_args"] == made["build_args"]

    # What was trained before is there.
    back = deploy(home, workspace, "--build-arg", "MODE=b c", "--build-arg", "PY=3")
    assert back["stages"] == ["build", "train"]
    assert stamps(home, workspace) == first


def test_a_failing_trial_costs_the_others_nothing(
    home: Home, workspace: str, tmp_path: Path, data: Path
) -> None:
    src = write_source(tmp_path / "src", body="assert params['x'] != 2, 'two is refused'")
    grid = write_grid(tmp_path / "grid.json", {"x": [1, 2, 3]})
    done = home.run(
        "train", "deploy", "-w", workspace, "-s", src, "-d", data, "-h", grid, "--wait", check=False
    )
    assert done.returncode == 1
    job = info(home, workspace)
    assert job["state"] == "partial"
    by_x = {t["params"]["x"]: t for t in job["trials"]}
    assert [by_x[x]["state"] for x in (1, 2, 3)] == ["success", "failed", "success"]
    assert "exit code 1" in by_x[2]["reason"]
    log = home.run("train", "logs", "-w", workspace, "--trial", str(by_x[2]["trial"])).stdout
    assert "two is refused" in log
    assert sorted(stamps(home, workspace)) == sorted(by_x[x]["model"] for x in (1, 3))


def test_failures_are_explained_where_the_job_is_shown(
    home: Home, workspace: str, tmp_path: Path, data: Path
) -> None:
    body = (
        "if params['x'] == 1: import nothing_like_it\nif params['x'] > 1: sys.exit('the data has no labels')"
    )
    grid = write_grid(tmp_path / "grid.json", {"x": [1, 2, 3]})
    src = write_source(tmp_path / "src", body=body)
    done = home.run(
        "train", "deploy", "-w", workspace, "-s", src, "-d", data, "-h", grid, "--wait", check=False
    )
    assert done.returncode == 1
    for told in (done.stdout, home.run("train", "info", "-w", workspace).stdout):
        assert "failed: exit code 1: ModuleNotFoundError: No module named 'nothing_like_it' (train, " in told
        assert told.count("failed: exit code 1: the data has no labels\n") == 1
        assert "all 3 trials failed" in told
        assert "train   success" not in told


def test_a_build_that_pip_fails_says_why(home: Home, workspace: str, tmp_path: Path, data: Path) -> None:
    src = write_source(
        tmp_path / "src", dockerfile=f"{DOCKERFILE}RUN pip install --no-index no-such-package==9\n"
    )
    done = home.run("train", "deploy", "-w", workspace, "-s", src, "-d", data, "--wait", check=False)
    assert done.returncode == 1
    step = "Dockerfile:4: RUN pip install --no-index no-such-package==9: "
    for told in (done.stdout, home.run("train", "info", "-w", workspace).stdout):
        assert re.search(re.escape(step) + r".*No matching distribution found for no-such-package==9", told)


def test_over_memory_fails_by_that_name_and_harms_no_other(
    home: Home, workspace: str, tmp_path: Path, data: Path
) -> None:
    src = write_source(tmp_path / "src", body="hog = bytearray(400 << 20) if params['x'] == 1 else b''")
    grid = write_grid(tmp_path / "grid.json", {"x": [1, 2]})
    deploy(home, workspace, "-s", src, "-d", data, "-h", grid, "--memory", "150M", check=False)
    by_x = {t["params"]["x"]: t for t in info(home, workspace)["trials"]}
    assert by_x[1]["state"] == "failed"
    assert "out of memory" in by_x[1]["reason"]
    assert by_x[2]["state"] == "success"


def test_tries_and_a_trials_time_stay_in_force(
    home: Home, workspace: str, tmp_path: Path, data: Path
) -> None:
    body = "import time\nif params['x'] == 2: time.sleep(600)"
    grid = write_grid(tmp_path / "grid.json", {"x": [1, 2]})
    src = write_source(tmp_path / "src", body=body)
    deploy(home, workspace, "-s", src, "-d", data, "-h", grid, "--tries", "2", "--timeout", "2s", check=False)
    job = info(home, workspace)
    by_x = {t["params"]["x"]: t for t in job["trials"]}
    assert (by_x[1]["state"], by_x[2]["state"]) == ("success", "failed")
    assert by_x[2]["reason"] == "timed out after 2 s"
    log = home.run("train", "logs", "-w", workspace, "--trial", str(by_x[2]["trial"])).stdout
    assert log.count("kaos: timed out after 2 s") == 2
    write_grid(grid, {"x": [3]})
    deploy(home, workspace, "-h", grid)
    assert info(home, workspace)["settings"] == job["settings"] | {"tries": 2, "timeout_s": 2.0}
    assert "2 tries, 2.0s at most" in home.run("train", "info", "-w", workspace).stdout


def test_resources_are_granted_and_told(home: Home, workspace: str, tmp_path: Path, data: Path) -> None:
    body = (
        "print('ENV', json.dumps({k: os.environ.get(k) for k in "
        "('KAOS_CPU', 'KAOS_MEMORY', 'KAOS_GPU', 'CUDA_VISIBLE_DEVICES', 'KAOS_WORKSPACE', 'KAOS_JOB_ID',"
        " 'KAOS_MODEL_ID')} | {'cores': len(os.sched_getaffinity(0)),"
        " 'data': sorted(os.listdir(os.environ['KAOS_DATA_DIR'])),"
        " 'out': os.environ['KAOS_OUTPUT_DIR'] == out}), flush=True)"
    )
    src = write_source(tmp_path / "src", body=body)
    answer = deploy(home, workspace, "-s", src, "-d", data, "--cpu", "1", "--memory", "256Mi", "--gpu", "1")
    log = home.run("train", "logs", "-w", workspace).stdout
    told = json.loads(next(line.split("ENV ", 1)[1] for line in log.splitlines() if "ENV " in line))
    assert told.pop("CUDA_VISIBLE_DEVICES") in ("0", "1")
    assert told == {
        "KAOS_CPU": "1",
        "KAOS_MEMORY": str(256 << 20),
        "KAOS_GPU": "1",
        "KAOS_WORKSPACE": workspace,
        "KAOS_JOB_ID": answer["job"],
        "KAOS_MODEL_ID": info(home, workspace)["trials"][0]["model"],
        "cores": 1,
        "data": ["a.txt", "deep"],
        "out": True,
    }


def test_what_cannot_ever_fit_is_refused_and_leaves_nothing(
    home: Home, workspace: str, src: Path, data: Path
) -> None:
    done = home.run("train", "deploy", "-w", workspace, "-s", src, "-d", data, "--gpu", "64", check=False)
    assert done.returncode == 2
    assert "64" in done.stderr
    assert "2" in done.stderr
    assert home.json("train", "list", "-w", workspace)["jobs"] == []


def test_models_code_and_data_come_back_bit_for_bit(
    home: Home, workspace: str, src: Path, data: Path, tmp_path: Path
) -> None:
    grid = write_grid(tmp_path / "grid.json", {"x": [1, 2]})
    deploy(home, workspace, "-s", src, "-d", data, "-h", grid)
    out = tmp_path / "out"
    home.run("train", "get", "-w", workspace, "--code", "--data", "-o", out)
    models = sorted(p.parent for p in out.rglob("model.bin"))
    assert len(models) == 2
    for model in models:
        assert (model / "model.bin").read_bytes() == bytes(range(256)) * 8
    train = next(out.rglob("train"))
    assert train.read_bytes() == (src / "train").read_bytes()
    assert train.stat().st_mode & 0o111
    fetched = next(out.rglob("b.bin"))
    assert fetched.read_bytes() == (data / "deep/er/b.bin").read_bytes()

    best = tmp_path / "best"
    home.run("train", "get", "-w", workspace, "--model", "best", "-o", best)
    assert len(list(best.rglob("model.bin"))) == 1


def test_a_build_that_fails_says_where(home: Home, workspace: str, tmp_path: Path, data: Path) -> None:
    src = write_source(tmp_path / "src", dockerfile="FROM python:3\nRUN apt-get install -y gcc\n")
    done = home.run("train", "deploy", "-w", workspace, "-s", src, "-d", data, "--wait", check=False)
    assert done.returncode == 1
    failed = info(home, workspace)
    assert failed["state"] == "failed"
    assert "Dockerfile:2" in failed["reason"]
    log = home.run("train", "logs", "-w", workspace, "--build").stdout
    assert "Dockerfile:2" in log
    assert "apt-get" in log


@pytest.mark.parametrize("sort", ["accuracy", "accuracy:asc"])
def test_trials_sort_as_numbers(
    home: Home, workspace: str, src: Path, data: Path, tmp_path: Path, sort: str
) -> None:
    grid = write_grid(tmp_path / "grid.json", {"x": [9, 10, 2.5]})
    deploy(home, workspace, "-s", src, "-d", data, "-h", grid)
    rows = home.json("train", "info", "-w", workspace, "--sort-by", sort)["trials"]
    order = [row["metrics"]["accuracy"] for row in rows]
    assert order == ([2.5, 9, 10] if sort.endswith("asc") else [10, 9, 2.5])


def test_the_data_alone_or_the_source_alone_waits_for_the_other(
    home: Home, workspace: str, src: Path, tmp_path: Path
) -> None:
    data = write_data(tmp_path / "d2", {"only.csv": b"1,2\n"})
    only_data = home.json("train", "deploy", "-w", workspace, "-d", data)
    assert only_data["status"] == "waiting"
    both = deploy(home, workspace, "-s", src)
    assert both["status"] == "started"
    assert len(stamps(home, workspace)) == 1


def test_resources_without_anything_to_train_are_refused(home: Home, workspace: str, src: Path) -> None:
    done = home.run("train", "deploy", "-w", workspace, "-s", src, "--cpu", "9999", check=False)
    assert done.returncode == 2
    assert "--cpu" in done.stderr
    assert home.json("workspace", "info", workspace)["source"] is None
