"""The main job with containers: the user's own Dockerfile, a real Docker engine, the same commands."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.support.bundles import write_data, write_grid, write_original, write_source
from tests.support.docker_engine import Dockerd, base_image, engine_or_skip
from tests.support.home import Home
from tests.support.registry import Registry
from tests.support.waiting import eventually

# A shell step that no virtual environment could stand for.
STEPS = "WORKDIR /app\nRUN echo a layer of its own > /etc/made && mkdir -p /opt/tools\nCOPY . .\n"
MADE = 'print(open("/etc/made").read(), os.getcwd(), sorted(os.listdir("/pfs")))'
CONTAINERS = "kaos.home"


@pytest.fixture(scope="module")
def api() -> Iterator[docker.APIClient]:
    api = engine_or_skip()
    yield api
    api.close()


@pytest.fixture
def dockerfile(api: docker.APIClient) -> str:
    return f"FROM {base_image(api)}\n{STEPS}"


def home_of_containers(path: Path) -> Home:
    host = {"DOCKER_HOST": os.environ["DOCKER_HOST"]} if "DOCKER_HOST" in os.environ else {}
    return Home(path, {"KAOS_RUNTIME": "docker", "KAOS_ENGINE_CPUS": "2", **host})


@pytest.fixture(scope="module")
def kept(api: docker.APIClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home whose trials are containers, for all tests that leave it as it is."""
    home = home_of_containers(tmp_path_factory.mktemp("docked") / "home")
    yield home
    home.down()
    assert containers_of(api, home) == []


@pytest.fixture
def docked(kept: Home, ws: str, api: docker.APIClient) -> Iterator[Home]:
    """That home, with a workspace for this test alone, whose containers and images go with it."""
    kept.run("workspace", "create", ws)
    yield kept
    kept.run("workspace", "kill", ws, "--yes", check=False)
    eventually(lambda: containers_of(api, kept) == [], "the containers to go with the workspace")


@pytest.fixture
def own(api: docker.APIClient, ws: str, tmp_path: Path) -> Iterator[Home]:
    """Another such home with one workspace, for a test that stops it."""
    home = home_of_containers(tmp_path / "home")
    home.run("workspace", "create", ws)
    yield home
    home.down()
    assert containers_of(api, home) == []


@pytest.fixture
def ws(api: docker.APIClient) -> Iterator[str]:
    """A name that no other home of this machine has: its images are the Docker engine's."""
    name = f"t{uuid.uuid4().hex[:12]}"
    yield name
    for image in api.images(f"*/{name}"):
        api.remove_image(image["Id"], force=True)


def containers_of(api: docker.APIClient, home: Home) -> list[str]:
    """The containers that have a folder of this home."""
    found = api.containers(filters={"label": CONTAINERS})
    return [one["Id"] for one in found if any(str(home.path) in m["Source"] for m in one["Mounts"])]


def deploy(home: Home, ws: str, *args: str | Path, check: bool = True) -> dict[str, object]:
    answer: dict[str, object] = home.json("train", "deploy", "-w", ws, *args, "--wait", check=check)
    return answer


def stamps(home: Home, ws: str) -> dict[str, float]:
    trials = home.json("train", "info", "-w", ws)["trials"]
    return {trial["model"]: trial["metrics"]["stamp"] for trial in trials if trial["metrics"]}


def test_the_whole_dockerfile_is_built_and_every_trial_runs_in_it_once(
    docked: Home, ws: str, api: docker.APIClient, dockerfile: str, tmp_path: Path
) -> None:
    src = write_source(tmp_path / "src", MADE, dockerfile)
    data, grid = write_data(tmp_path / "data"), write_grid(tmp_path / "grid.json", {"x": [1, 2, 3]})
    deploy(docked, ws, "-s", src, "-d", data, "-h", grid, "--memory", "256M")
    log = docked.run("train", "logs", "-w", ws).stdout
    built = docked.run("train", "logs", "--stage", "build", "-w", ws).stdout
    assert "RUN echo a layer of its own" in built
    assert "/app ['build', 'data', 'hyper', 'out']" in log
    ran = stamps(docked, ws)
    assert len(ran) == 3

    write_grid(grid, {"x": [1, 2, 3, 4]})
    assert deploy(docked, ws, "-h", grid)["stages"] == ["train"]
    grown = stamps(docked, ws)
    assert {model: grown[model] for model in ran} == ran
    assert len(grown) == 4
    docked.run("train", "get", "-w", ws, "--model", "best", "-o", tmp_path / "best")
    (model,) = (tmp_path / "best").rglob("model.bin")
    assert (model.stat().st_size, model.stat().st_uid) == (2048, os.getuid())

    write_source(src, "print('other code')", dockerfile)
    assert deploy(docked, ws, "-s", src)["stages"] == ["build", "train"]
    assert "Using cache" in docked.run("train", "logs", "--stage", "build", "-w", ws).stdout
    assert docked.json("status")["runtime"]["name"] == "docker"

    # An image of the second deploy, whose workers may still be there, and one of the first.
    assert len(api.images(f"kaos/{ws}")) == 2
    docked.run("workspace", "kill", ws, "--yes")
    eventually(lambda: not api.images(f"*/{ws}"), "the images to go with the workspace, claims too")


def test_what_ran_is_known_by_its_digest_and_pulled_where_it_is_missing(
    own: Home, ws: str, api: docker.APIClient, tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "registry")
    try:
        own.run("down")
        own.env["KAOS_REGISTRY"] = f"{registry.address}/team"
        src = write_source(tmp_path / "src", "", f"FROM {base_image(api, python=False)}\n{STEPS}")
        (src / "train").write_text('#!/bin/sh\necho made > "$1/model"\n')
        data, grid = write_data(tmp_path / "d"), write_grid(tmp_path / "grid.json", {"x": [1]})
        deploy(own, ws, "-s", src, "-d", data, "-h", grid)
        (first,) = own.json("train", "info", "-w", ws)["trials"]
        assert first["image"].startswith(f"{registry.address}/team/kaos/{ws}@sha256:")

        # As on another engine.
        own.run("down")
        for image in api.images(f"kaos/{ws}"):
            api.remove_image(image["Id"], force=True)
        deploy(own, ws, "-h", write_grid(grid, {"x": [1, 2]}))
        job = own.json("train", "info", "-w", ws)
        assert [stage["name"] for stage in job["stages"]] == ["train"]
        assert [trial["image"] for trial in job["trials"]] == [first["image"]] * 2
    finally:
        registry.close()


def test_build_secrets_are_kept_sealed_until_others_are_given(
    docked: Home, ws: str, dockerfile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = "hunter22", "correct horse"
    read = "RUN --mount=type=secret,id=TOKEN,required=true t=$(cat /run/secrets/TOKEN);"
    # Nothing of what an earlier run of this test left in Docker's cache.
    dockerfile += f"ENV RUN={uuid.uuid4()}\n{read} [ ${{#t}} = {len(values[1])} ] || {{ echo $t; exit 9; }}\n"
    for name, value in zip(("TOKEN", "OTHER"), values, strict=True):
        monkeypatch.setitem(docked.env, name, value)
    src, data = write_source(tmp_path / "src", "", dockerfile), write_data(tmp_path / "d")
    failed = docked.json("train", "deploy", "-w", ws, "-s", src, "-d", data, "--secret", "TOKEN")
    assert failed["build_secrets"] == ["TOKEN"]
    assert docked.run("train", "wait", "-w", ws, check=False).returncode == 1
    assert "exit code 9: ****" in docked.run("train", "info", "-w", ws).stdout

    # Another value for the same name; then with other code, where the step is carried out once more.
    deploy(docked, ws, "--secret", "id=TOKEN,env=OTHER")
    write_source(src, "print('other code')", dockerfile.replace("RUN --mount", "ENV A=1\nRUN --mount"))
    assert deploy(docked, ws, "-s", src)["build_secrets"] == ["TOKEN"]
    assert docked.json("train", "info", "-w", ws)["state"] == "success"
    kept = [path.read_bytes() for path in docked.path.rglob("*") if path.is_file()]
    assert not [value for value in values for content in kept if value.encode() in content]
    docked.run("workspace", "kill", ws, "--yes")
    assert list(docked.client().pps.list_secret().secret_info) == []


def test_a_step_that_fails_is_named_with_its_line_and_what_it_said(
    docked: Home, ws: str, dockerfile: str, tmp_path: Path
) -> None:
    failing = f"{dockerfile}# a comment\nRUN echo looking && echo 'ERROR: no such wheel' >&2; exit 3\n"
    src = write_source(tmp_path / "src", dockerfile=failing)
    done = docked.run(
        "train", "deploy", "-w", ws, "-s", src, "-d", write_data(tmp_path / "d"), "--wait", check=False
    )
    assert done.returncode == 1
    said = done.stdout + done.stderr
    line = failing.count("\n")
    assert f"Dockerfile:{line}: RUN echo looking" in " ".join(said.split())
    assert "exit code 3: ERROR: no such wheel" in " ".join(said.split())


def test_a_bundle_of_the_original_kaos_runs_as_it_is(
    docked: Home, ws: str, api: docker.APIClient, tmp_path: Path
) -> None:
    write_original(tmp_path / "src", base_image(api))
    data = write_data(tmp_path / "data", {"one.txt": b"1", "two.txt": b"2"})
    grid = write_grid(tmp_path / "grid.json", {"x": [1, 2]})
    deploy(docked, ws, "-s", tmp_path / "src", "-d", data, "-h", grid)
    trials = docked.json("train", "info", "-w", ws)["trials"]
    assert sorted(trial["metrics"]["x"] for trial in trials) == [1, 2]
    assert {trial["metrics"]["files"] for trial in trials} == {2}


@pytest.mark.parametrize("victim", ["engine", "container"])
def test_what_is_killed_in_the_middle_of_a_grid_costs_no_result(
    docked: Home, ws: str, api: docker.APIClient, dockerfile: str, tmp_path: Path, victim: str
) -> None:
    src = write_source(tmp_path / "src", "time.sleep(1)", dockerfile)
    grid = write_grid(tmp_path / "grid.json", {"x": [1, 2, 3, 4]})
    docked.run("train", "deploy", "-w", ws, "-s", src, "-d", write_data(tmp_path / "d"), "-h", grid)
    eventually(lambda: containers_of(api, docked), "a trial's container")
    running = containers_of(api, docked)
    if victim == "engine":
        docked.kill("engine")
        eventually(lambda: not set(running) & set(containers_of(api, docked)), "its containers to be gone")
    else:
        api.kill(running[0])
    docked.run("train", "wait", "-w", ws)
    assert len(stamps(docked, ws)) == 4


def test_a_docker_engine_that_is_killed_and_comes_back_costs_no_result(tmp_path: Path) -> None:
    dockerd = Dockerd()
    api = dockerd.start()
    home = Home(tmp_path / "home", {"KAOS_RUNTIME": "docker", "DOCKER_HOST": dockerd.host})
    try:
        src = write_source(tmp_path / "src", "time.sleep(1)", f"FROM {base_image(api)}\n{STEPS}")
        grid = write_grid(tmp_path / "grid.json", {"x": [1, 2, 3, 4]})
        home.run("train", "deploy", "-s", src, "-d", write_data(tmp_path / "d"), "-h", grid)
        eventually(lambda: containers_of(api, home), "a trial's container")
        api.close()
        dockerd.kill()
        api = dockerd.start()
        home.run("train", "wait")
        assert len(stamps(home, "default")) == 4
    finally:
        home.down()
        api.close()
        dockerd.stop()


def test_the_runtime_of_a_home_is_chosen_by_kaos_up(own: Home, ws: str, tmp_path: Path) -> None:
    own.env.pop("KAOS_RUNTIME")
    assert own.json("status")["runtime"]["name"] == "docker"
    refused = own.run("up", "--runtime", "process", check=False)
    assert refused.returncode == 2
    assert "kaos down && kaos up --runtime process" in refused.stderr
    own.run("down")
    own.run("up", "--runtime", "process")
    own.run("down")
    assert own.json("up")["runtime"]["name"] == "process"
    assert own.run("up", "--runtime", "podman", check=False).returncode == 2


def test_a_docker_engine_that_is_down_is_said_and_nothing_else_is_used(
    own: Home, ws: str, dockerfile: str, tmp_path: Path
) -> None:
    src, data = write_source(tmp_path / "src", "", dockerfile), write_data(tmp_path / "d")
    deploy(own, ws, "-s", src, "-d", data)
    own.run("down")
    host, choice = own.env.get("DOCKER_HOST"), own.env.pop("KAOS_RUNTIME")
    assert choice == "docker"
    own.env["DOCKER_HOST"] = f"unix://{tmp_path}/none.sock"
    # What is there can still be looked at.
    assert len(stamps(own, ws)) == 1
    write_source(src, "print('other')", dockerfile)
    own.run("train", "deploy", "-w", ws, "-s", src)

    def reason() -> bool:
        job = own.json("train", "info", "-w", ws)
        return job["state"] == "waiting" and "no Docker engine answers" in str(job["reason"])

    eventually(reason, "the job's reason")
    (row,) = own.json("status")["jobs"]
    # Nobody can tell until when.
    assert (row["waits_for"], row["left_s"]) == (["docker"], None)
    own.run("down")
    own.env.pop("DOCKER_HOST")
    own.env |= {"DOCKER_HOST": host} if host else {}
    own.run("train", "wait", "-w", ws)
    assert len(stamps(own, ws)) == 1
    assert own.json("status")["runtime"]["name"] == "docker"
