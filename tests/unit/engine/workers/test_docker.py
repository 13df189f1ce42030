"""What is the Docker runtime's own: its containers, what they see, and what is left of them."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.workers import choice
from kaos_backend.engine.workers.choice import choose
from kaos_backend.engine.workers.docker import images
from kaos_backend.engine.workers.docker.container import Setting
from kaos_backend.engine.workers.docker.engine import owner_in_containers
from kaos_backend.engine.workers.docker.runtime import HOME_LABEL, DockerRuntime
from kaos_backend.engine.workers.docker.worker import DockerWorker
from kaos_backend.engine.workers.port import Grant, SmallInput, StoredImage, Worker, WorkerSpec, is_missing
from kaos_formats.images import claim, home_label
from tests.support.docker_engine import engine_or_skip
from tests.support.registry import Registry

from .conftest import Bench, collected, engine_with_a_trial, named, text_of, until

MIB = 1 << 20


@pytest.fixture
def api() -> Iterator[docker.APIClient]:
    api = engine_or_skip()
    yield api
    api.close()


def container_of(worker: Worker) -> str:
    assert isinstance(worker, DockerWorker)
    assert worker.container is not None
    return worker.container.id


def folder(path: Path, files: int) -> Path:
    path.mkdir(parents=True)
    for number in range(files):
        (path / f"f{number}").write_bytes(b"x" * 10)
    return path


def test_a_container_serves_until_a_large_input_changes(docked: Bench, tmp_path: Path) -> None:
    worker = docked.worker()
    large, other = folder(tmp_path / "large", 3), folder(tmp_path / "other", 100)
    small = [SmallInput({f"/f{number}": b"x" for number in range(count)}) for count in (1, 2, 3)]
    seen = []
    for data, params in ((large, small[0]), (large, small[1]), (other, small[1]), (other, small[2])):
        inputs = {"data": data, "params": params}
        _, text = docked.run("ls /pfs/data | wc -l; ls /pfs/params | wc -l; ls /pfs", worker, inputs=inputs)
        count = [str(len(list(data.iterdir()))), str(len(params.files))]
        assert text.split() == [*count, "data", "out", "params"]
        seen.append(container_of(worker))
    assert seen[0] == seen[1] != seen[2] == seen[3]
    assert docked.run("ls /pfs", worker)[1] == "out"


@pytest.mark.parametrize("small", [True, False])
def test_inputs_cannot_be_written(docked: Bench, tmp_path: Path, small: bool) -> None:
    data = folder(tmp_path / "data", 1)
    given = SmallInput({"/f0": b"x" * 10}) if small else data
    script = "echo y > /pfs/data/f0; rm /pfs/data/f0; echo z > /pfs/data/new; mkdir /pfs/more; exit 0"
    _, text = docked.run(script, inputs={"data": given})
    assert text.count("Read-only file system") == 4
    assert [path.name for path in data.iterdir()] == ["f0"]
    assert (data / "f0").stat().st_size == 10


def test_a_container_has_no_privileges_and_no_way_to_its_engine(docked: Bench) -> None:
    _, text = docked.run("grep NoNewPrivs /proc/self/status; ls /var/run/docker.sock /run/docker.sock 2>&1")
    assert text.split("\n")[0].split() == ["NoNewPrivs:", "1"]
    assert text.count("No such file") == 2
    _, text = docked.run("mount -t tmpfs none /tmp 2>&1 || echo refused; ls /dev | grep -c sd || true")
    assert "refused" in text


def test_the_user_of_the_image_writes_and_the_engines_owns(docked: Bench, tmp_path: Path) -> None:
    worker = docked.worker(user="ada")
    assert isinstance(worker, DockerWorker)
    worker.setting = Setting("4321:4321", worker.setting.network, worker.setting.labels)
    exit_, text = docked.run("id -un; mkdir /pfs/out/m; umask 077; echo w > /pfs/out/m/w", worker)
    assert (exit_.code, text) == (0, "ada")
    made = docked.engine_dir / "out1" / "m" / "w"
    assert (made.stat().st_uid, made.parent.stat().st_uid) == (4321, 4321)
    assert collected(exit_) == {"/m/w": b"w\n"}


def test_shared_memory_is_as_large_as_the_limit(docked: Bench) -> None:
    _, text = docked.run("df -k /dev/shm | tail -1", grant=Grant(1, (), 96 * MIB, ()))
    assert text.split()[1] == str(96 * 1024)


def test_no_image_goes_that_another_home_claims_or_a_worker_uses(
    docked: Bench, api: docker.APIClient, tmp_path: Path
) -> None:
    image = docked.image({"/app/f": str(tmp_path)})
    here, there = home_label(docked.engine_dir), home_label(tmp_path / "elsewhere")
    foreign = f"{image.partition(':')[0]}-foreign:1"
    for name in (foreign, claim(image, here), claim(image, there)):
        api.tag(image, *name.rsplit(":", 1))
    other = DockerRuntime(tmp_path / "elsewhere", os.environ)
    size = api.inspect_image(image)["Size"]
    assert docked.runtime.stored_images() == [StoredImage("image", image, size, frozenset({image}))]
    assert docked.runtime.keep_images(lambda _: False)
    assert docked.runtime.stored_images() == []
    assert [one.images for one in other.stored_images()] == [{image}]
    names = {image, foreign, claim(image, there)}
    assert set(api.inspect_image(image)["RepoTags"]) == names

    api.remove_image(foreign)
    worker = docked.worker(image)
    docked.run("exit 0", worker)
    assert not other.keep_images(lambda _: False)
    assert api.inspect_image(claim(image, there))
    worker.close()
    until(lambda: other.keep_images(lambda _: False), "the container to be gone")
    assert api.images(image) == api.images(claim(image, there)) == []


@pytest.mark.parametrize(
    "name", ["127.0.0.1:5000", "localhost/team", "registry.example.org/a/b-c/", "[::1]:5"]
)
def test_a_registry_is_told(name: str, tmp_path: Path) -> None:
    env = {"KAOS_RUNTIME": "docker", "KAOS_REGISTRY": name, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    pair = choose(env, tmp_path / "engine", tmp_path)
    assert pair.notes[-1] == f"images are pushed to {name.rstrip('/')}, and pulled from there"


@pytest.mark.parametrize(
    "name", ["team", "team/x", "http://h:1", "h.org/UPPER", "h.org//a", "h.org/a b", "h.org/.."]
)
def test_what_is_no_registry_is_refused(name: str, tmp_path: Path) -> None:
    env = {"KAOS_RUNTIME": "docker", "KAOS_REGISTRY": name, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    with pytest.raises(EngineError, match=r"KAOS_REGISTRY is .*host:port/prefix"):
        choose(env, tmp_path / "engine", tmp_path)


def test_a_registry_that_is_gone_is_said_and_not_asked_all_the_time(
    docked: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = DockerRuntime(tmp_path / "engine2", os.environ, registry="127.0.0.1:1/x")
    assert runtime.image_problem(docked.image({})) == ""
    asked: list[str] = []
    real = images.in_registry

    def counting(api: docker.APIClient, name: str, registry: str) -> bool:
        asked.append(name)
        return real(api, name, registry)

    monkeypatch.setattr(images, "in_registry", counting)
    for _ in range(3):
        problem = runtime.image_problem("kaos/nobody:1")
        assert "image kaos/nobody:1 is not on this machine" in problem
        assert "127.0.0.1:1/x cannot be asked" in problem
        assert not is_missing(problem)
    assert asked == ["kaos/nobody:1"]
    with pytest.raises(EngineError, match=r"cannot be pulled from 127\.0\.0\.1:1/x"):
        runtime.start_worker(WorkerSpec("w", "kaos/nobody:1", {}, "", None))


def test_only_a_registry_that_answers_says_that_an_image_is_gone(
    docked: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path / "registry", private=True)
    try:
        problems = []
        for name, config in (("stranger", tmp_path), ("user", registry.login(tmp_path / "docker"))):
            monkeypatch.setenv("DOCKER_CONFIG", str(config))
            runtime = DockerRuntime(tmp_path / name, os.environ, registry=f"{registry.address}/x")
            problems.append(runtime.image_problem("kaos/nobody:1"))
    finally:
        registry.close()
    assert [is_missing(problem) for problem in problems] == [False, True], problems


def test_cores_are_a_quota(docked: Bench) -> None:
    script = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null"
    _, text = docked.run(script, grant=Grant(0.5, (), None, ()))
    assert text.split()[0] == "50000"
    assert docked.run("exit 0", grant=Grant(4096.0, (), None, ()))[0].code == 0


def test_trials_without_a_network(docked: Bench, tmp_path: Path) -> None:
    env = {**os.environ, "KAOS_RUNTIME": "docker", "KAOS_ENGINE_NETWORK": "off"}
    pair = choose(env, tmp_path / "home" / "engine2", tmp_path)
    assert pair.notes == ("trials have no network",)
    docked.runtime = pair
    assert docked.run("ls /sys/class/net")[1] == "lo"


def test_a_container_that_is_killed_costs_one_run(docked: Bench, api: docker.APIClient) -> None:
    worker, exits = docked.worker(), []
    run = docked.datum("echo up; sleep 1000")
    thread = threading.Thread(target=lambda: exits.append(worker.run(run, threading.Event())))
    thread.start()
    until(lambda: text_of(run.log) == "up", "the datum to start")
    api.kill(container_of(worker))
    thread.join(60)
    assert exits[0].reason == "error"
    assert docked.run("exit 3", worker)[0].code == 3


def test_containers_die_with_a_killed_engine_and_the_next_sweeps_no_others(
    docked: Bench, api: docker.APIClient, tmp_path: Path
) -> None:
    mark = f"94{os.getpid()}.25"
    engine = tmp_path / "other" / "engine"
    process = engine_with_a_trial(engine, "DockerRuntime(e, os.environ)", docked.images.base, mark)
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: named(mark) == [], "the trial to be gone")

    # One that does not go by itself, of the same home, and one of nobody.
    label = {HOME_LABEL: DockerRuntime(engine, os.environ).label}
    ours, others = (
        api.create_container(docked.images.base, ["sleep", "1000"], labels=labels)["Id"]
        for labels in (label, {HOME_LABEL: "another"})
    )
    try:
        DockerRuntime(engine, os.environ)
        left = {one["Id"] for one in api.containers(all=True)}
        assert ours not in left
        assert others in left
    finally:
        api.remove_container(others, force=True)


def test_a_trial_of_root_is_started_by_the_keeper_as_if_alone(
    docked: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No start by the engine, no signal ignored, and what it does to its own group reaches nobody else."""
    worker = docked.worker()
    assert isinstance(worker, DockerWorker)
    monkeypatch.delattr("docker.api.exec_api.ExecApiMixin.exec_create")
    _, text = docked.run("grep SigIgn /proc/self/status", worker)
    interrupt_and_quit = 1 << signal.SIGINT - 1 | 1 << signal.SIGQUIT - 1
    assert not int(text.split()[1], 16) & interrupt_and_quit
    container = worker.container
    exit_, text = docked.run("echo so far; kill -KILL 0", worker)
    assert (exit_.code, text) == (137, "so far")
    assert docked.run("", worker, cmd=("cat",), stdin=b"one\n two  \n\n")[1] == "one\n two  \n"
    assert docked.run('echo "$A"; pwd', worker, env={"A": "'b' $c\nd"})[1].startswith("'b' $c\nd")
    assert worker.container is container


def test_a_log_of_many_lines_comes_whole(docked: Bench) -> None:
    exit_, text = docked.run("head -c 3000000 /dev/zero | tr '\\0' '\\n'; echo end")
    assert exit_.code == 0
    assert len(text) == 3_000_003
    assert text.endswith("\nend")


def test_an_image_without_a_shell_is_refused_by_name(docked: Bench) -> None:
    image = docked.images.make({}, "/", {"PATH": "/nowhere"})
    exit_, _ = docked.run("exit 5", docked.worker(image))
    assert exit_.reason == "error"
    assert "sh" in exit_.message


def test_a_docker_engine_that_cannot_be_used(tmp_path: Path) -> None:
    nobody = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    runtime = DockerRuntime(tmp_path / "engine", nobody)
    assert "no Docker engine answers" in runtime.notes[0]
    assert "no Docker engine answers" in runtime.image_problem("kaos/ws:1")
    with pytest.raises(EngineError, match="no Docker engine answers"):
        runtime.start_worker(WorkerSpec("w", "kaos/ws:1", {}, "", None))
    with pytest.raises(EngineError, match="on this machine"):
        DockerRuntime(tmp_path / "engine", {"DOCKER_HOST": "tcp://h:1"}).start_worker(
            WorkerSpec("w", "kaos/ws:1", {}, "", None)
        )


def test_who_owns_what_a_trial_writes() -> None:
    assert owner_in_containers({"SecurityOptions": ["name=seccomp"]}, 0, 0) == ""
    assert owner_in_containers({"SecurityOptions": None}, 1000, 100) == "1000:100"
    assert owner_in_containers({"SecurityOptions": ["name=rootless"]}, 1000, 100) == "0:0"
    with pytest.raises(EngineError, match="userns-remap"):
        owner_in_containers({"SecurityOptions": ["name=userns"]}, 0, 0)


def test_the_choice_is_made_once_and_kept(tmp_path: Path) -> None:
    engine_dir = tmp_path / "engine"
    engine_dir.mkdir()
    nobody = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    assert choose(nobody, engine_dir, tmp_path).name == "process"
    # An engine that comes later changes nothing by itself.
    assert choose({**os.environ, "KAOS_RUNTIME": ""}, engine_dir, tmp_path).name == "process"
    assert choose(nobody | {"KAOS_RUNTIME": "docker"}, engine_dir, tmp_path).name == "docker"
    assert choose(nobody, engine_dir, tmp_path).name == "docker"
    (engine_dir / "runtime").write_bytes(b"\xff")
    assert choose(nobody, engine_dir, tmp_path).name == "process"


def test_a_choice_that_cannot_be_noted_keeps_no_engine_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(choice, "write_atomically", full)
    nobody = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    assert choose(nobody, tmp_path / "engine", tmp_path).name == "process"


@pytest.mark.usefixtures("api")
def test_an_engine_that_answers_is_used_at_first(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    new.mkdir()
    (old / "images" / "one").mkdir(parents=True)
    env = {**os.environ, "KAOS_RUNTIME": ""}
    assert choose(env, new, tmp_path).name == "docker"
    # A home that has trained with processes goes on with them.
    assert choose(env, old, tmp_path).name == "process"
