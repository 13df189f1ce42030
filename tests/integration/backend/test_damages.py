"""Starting never fails for what can be made again: whatever became of it, the engine starts and works."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.backend import Backend, running_backend
from tests.support.stubborn import Stubborn, stubborn
from tests.support.waiting import eventually

Damage = Callable[[Path, Stubborn], None]

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which a job has run, its servers stopped."""
    home = tmp_path_factory.mktemp("used") / "home"
    with running_backend(home) as backend:
        backend.workspace("w")
        backend.deploy_all("w", {"lr": [0.1]})
        assert backend.wait("w")["state"] == "success"
    return home


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Stubborn]:
    with stubborn(tmp_path) as made:
        yield made


def works(backend: Backend) -> None:
    """What the home had is there, and the same source and data train on."""
    before = backend.call("GET", "/workspaces/w/jobs/last")
    assert before["state"] == "success"
    archive = backend.request("GET", "/workspaces/w/jobs/last/archive?what=model")
    assert archive.status_code == 200
    made = backend.deploy_all("w", {"lr": [0.1, 0.1 + next(_numbers) / 100]})
    job = backend.wait("w", made["job"])
    assert (job["state"], len(job["trials"])) == ("success", 2), job
    assert backend.request("GET", f"/workspaces/w/jobs/{made['job']}/logs").status_code == 200


def dig(top: Path) -> None:
    """Folders in folders, deeper than a recursion may go."""
    at = os.open(top, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)


def gone(name: str) -> Damage:
    def damage(home: Path, held: Stubborn) -> None:
        path = home / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def a_file(name: str) -> Damage:
    def damage(home: Path, held: Stubborn) -> None:
        gone(name)(home, held) if (home / name).exists() else None
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(b"\xff\x00 no folder")

    return damage


def a_folder(name: str) -> Damage:
    def damage(home: Path, held: Stubborn) -> None:
        gone(name)(home, held) if (home / name).exists() else None
        (home / name / "x").mkdir(parents=True)

    return damage


def a_link(name: str) -> Damage:
    def damage(home: Path, held: Stubborn) -> None:
        gone(name)(home, held) if (home / name).exists() else None
        (home / name).symlink_to(home / "nowhere")

    return damage


def garbage(name: str) -> Damage:
    def damage(home: Path, held: Stubborn) -> None:
        paths = sorted(home.glob(name))
        assert paths
        for path in paths:
            path.write_bytes(b'{"pid": [1, \xff')

    return damage


def empty(name: str) -> Damage:
    def damage(home: Path, held: Stubborn) -> None:
        (home / name).write_text("")

    return damage


def undeletable(name: str) -> Damage:
    def damage(home: Path, held: Stubborn) -> None:
        (home / name).mkdir(parents=True, exist_ok=True)
        (home / name / "kept").write_text("x")
        held.immutable(home / name / "kept")

    return damage


def unchangeable(name: str) -> Damage:
    def damage(home: Path, held: Stubborn) -> None:
        (home / name).mkdir(parents=True, exist_ok=True)
        held.immutable(home / name)

    return damage


def mounted(name: str) -> Damage:
    def damage(home: Path, held: Stubborn) -> None:
        (home / name).mkdir(parents=True, exist_ok=True)
        held.mount(home / name)

    return damage


def deep(name: str) -> Damage:
    def damage(home: Path, held: Stubborn) -> None:
        (home / name).mkdir(parents=True, exist_ok=True)
        dig(home / name)

    return damage


def emptied_inputs(home: Path, held: Stubborn) -> None:
    """Folders of inputs with nothing in them."""
    for entry in (home / "engine" / "trees").glob("?" * 64 + "-*[!l]"):
        entry.chmod(0o700)
        shutil.rmtree(entry)
        entry.mkdir()


# What can befall one part has nothing to do with what befalls another, so each round takes one of every part.
LATER = [None] * 5
DAMAGES: dict[str, list[Damage | None]] = {
    "scratch": [
        gone("engine/scratch"),
        a_file("engine/scratch"),
        a_link("engine/scratch"),
        unchangeable("engine/scratch"),
        mounted("engine/scratch"),
    ],
    # In the rounds after those that take all of it.
    "scratch of trials": [
        *LATER,
        undeletable("engine/scratch/datums/1"),
        deep("engine/scratch/datums/1/x"),
        a_file("engine/scratch/datums"),
    ],
    "scratch of workers": [
        *LATER,
        undeletable("engine/scratch/workers/x"),
        deep("engine/scratch/workers/x/root/tmp"),
        mounted("engine/scratch/workers/x/root/tmp"),
    ],
    "inputs": [
        gone("engine/trees"),
        a_file("engine/trees"),
        undeletable("engine/trees/x"),
        unchangeable("engine/trees"),
        emptied_inputs,
        a_folder("engine/trees/.boot"),
    ],
    "images": [
        gone("engine/images"),
        a_file("engine/images"),
        undeletable("engine/images/x"),
        garbage("engine/images/*/config.json"),
    ],
    "environments": [undeletable("engine/venvs/x"), a_file("engine/venvs"), gone("engine/venvs")],
    "what a crash left": [
        undeletable("engine/tmp/x"),
        a_folder("engine/packs/x.pack"),
        a_file("engine/objects/x"),
        a_file("engine/tmp"),
        gone("engine/tmp"),
    ],
    "logs of jobs": [
        gone("engine/logs"),
        a_file("engine/logs"),
        undeletable("engine/logs/w/train"),
        a_folder("engine/logs/w/train/x.log"),
    ],
    "logs": [gone("logs"), a_file("logs"), a_folder("logs/engine.log"), undeletable("logs")],
    "engine.json": [garbage("engine.json"), a_folder("engine.json"), gone("engine.json")],
    "pachctl.json": [garbage("pachctl.json"), a_folder("pachctl.json"), gone("pachctl.json")],
    "lock": [a_folder("engine.lock"), gone("engine.lock")],
    "token": [garbage("token"), a_folder("token"), gone("token"), empty("token")],
}
ROUNDS = [
    [damage for damage in round if damage is not None] for round in itertools.zip_longest(*DAMAGES.values())
]


@pytest.mark.parametrize("damages", ROUNDS)
def test_it_starts_and_works(used: Path, tmp_path: Path, held: Stubborn, damages: list[Damage]) -> None:
    home = tmp_path / "home"
    shutil.copytree(used, home, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
    for damage in damages:
        damage(home, held)
    with running_backend(home) as backend:
        works(backend)
    said = (home / "logs" / "engine.log").read_text()
    assert "Traceback" not in said


def test_it_says_what_it_did(used: Path, tmp_path: Path, held: Stubborn) -> None:
    home = tmp_path / "home"
    shutil.copytree(used, home, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
    a_file("engine/scratch")(home, held)
    undeletable("engine/trees/x")(home, held)
    a_folder("engine/trees/.boot")(home, held)
    engine_log = home / "logs" / "engine.log"
    with running_backend(home) as backend:
        works(backend)
        said = engine_log.read_text()
        assert f"{home / 'engine' / 'scratch'} is made again: it was no folder" in said
        # What was put aside goes a few seconds later, when the start is over.
        stays = f"{home / 'engine'}/.gone-trees-"
        eventually(
            lambda: any(
                stays in line and "could not be removed: Operation not permitted (kept)" in line
                for line in engine_log.read_text().splitlines()
            ),
            "it is said what stays",
        )
