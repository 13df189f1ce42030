"""Every wrong input: a message that says what to do, its exit code, and no trace in any repo."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pachyderm_sdk.api import pfs

from tests.support.bundles import write_data, write_grid, write_source
from tests.support.home import Home

GOOD_GRID = {"x": [1, 2]}


def trace(home: Home, workspace: str) -> list[tuple[str, str, str]]:
    """All branches and commits of a workspace, as a stranger sees them."""
    client = home.client()
    found = []
    for info in client.pfs.list_repo(type="", projects=[pfs.Project(name=workspace)]):
        found += [(info.repo.name, "branch", b.branch.name) for b in client.pfs.list_branch(repo=info.repo)]
        found += [
            (info.repo.name, "commit", c.commit.id) for c in client.pfs.list_commit(repo=info.repo, all=True)
        ]
    return sorted(found)


def no_dockerfile(at: Path) -> list[str]:
    (write_source(at / "src") / "Dockerfile").unlink()
    return ["-s", f"{at}/src"]


def no_train(at: Path) -> list[str]:
    (write_source(at / "src") / "train").unlink()
    return ["-s", f"{at}/src"]


def train_not_executable(at: Path) -> list[str]:
    write_source(at / "src", mode=0o644)
    return ["-s", f"{at}/src"]


def train_without_interpreter(at: Path) -> list[str]:
    (write_source(at / "src") / "train").write_text("import os\nprint(os.environ)\n")
    return ["-s", f"{at}/src"]


def train_with_windows_line_ends(at: Path) -> list[str]:
    (write_source(at / "src") / "train").write_text("#!/usr/bin/env python3\r\nprint()\r\n", newline="")
    return ["-s", f"{at}/src"]


def empty_data(at: Path) -> list[str]:
    (at / "empty").mkdir()
    return ["-d", f"{at}/empty"]


def no_such_folder(at: Path) -> list[str]:
    return ["-d", f"{at}/nowhere"]


def symlink_that_leaves(at: Path) -> list[str]:
    (write_data(at / "data") / "passwd").symlink_to("/etc/passwd")
    return ["-d", f"{at}/data"]


def name_that_is_no_text(at: Path) -> list[str]:
    write_data(at / "data")
    (Path(os.fsdecode(os.fsencode(at) + b"/data/gr\xf6\xdfe.csv"))).write_bytes(b"x")
    return ["-d", f"{at}/data"]


def grid_of(content: object) -> Callable[[Path], list[str]]:
    def make(at: Path) -> list[str]:
        return ["-h", str(write_grid(at / "bad.json", content))]

    return make


MISSING = {"no such workspace"}
"""What is well said, but not there: exit code 3; the rest is 2."""

CASES: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "missing Dockerfile": (no_dockerfile, "Dockerfile"),
    "missing train": (no_train, "train"),
    "train not executable": (train_not_executable, "chmod +x"),
    "train without #!": (train_without_interpreter, "#!/usr/bin/env python3"),
    "train with \\r\\n": (train_with_windows_line_ends, "sed -i"),
    "empty data folder": (empty_data, "empty"),
    "no such folder": (no_such_folder, "nowhere"),
    "symlink that leaves": (symlink_that_leaves, "passwd"),
    "name that is not UTF-8": (name_that_is_no_text, "UTF-8"),
    "broken grid": (grid_of('{"x": [1, 2'), "bad.json"),
    "empty grid file": (grid_of(""), "bad.json"),
    "empty grid": (grid_of("{}"), "bad.json"),
    "grid is no object": (grid_of([1, 2]), "bad.json"),
    "empty axis": (grid_of({"x": []}), "x"),
    "axis of lists": (grid_of({"x": [[1], [2]]}), "x"),
    "axis of objects": (grid_of({"x": [{"a": 1}]}), "x"),
    "same name twice": (grid_of('{"x": [1], "x": [2]}'), "x"),
    "memory is no quantity": (lambda at: ["--memory", "lots"], "lots"),
    "cpu is no amount": (lambda at: ["--cpu", "-1"], "cpu"),
    "gpu is no count": (lambda at: ["--gpu", "-1"], "gpu"),
    "no such workspace": (lambda at: ["-w", "nowhere"], "nowhere"),
    "workspace name": (lambda at: ["-w", "no/slash"], "no/slash"),
}


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_is_told_and_leaves_no_trace(
    home: Home, workspace: str, tmp_path: Path, case: str
) -> None:
    make, told = CASES[case]
    bad = make(tmp_path)
    good = {
        "-s": str(write_source(tmp_path / "good-src")),
        "-d": str(write_data(tmp_path / "good-data")),
        "-h": str(write_grid(tmp_path / "good.json", GOOD_GRID)),
        "-w": workspace,
    }
    arguments = good | dict(zip(bad[::2], bad[1::2], strict=True))
    before = trace(home, workspace)
    done = home.run("train", "deploy", *[a for pair in arguments.items() for a in pair], check=False)
    assert done.returncode == (3 if case in MISSING else 2), done.stdout + done.stderr
    assert told in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert trace(home, workspace) == before


@pytest.mark.parametrize(
    ("arguments", "told", "exits"),
    [
        (["train", "info", "deadbeef"], "deadbeef", 3),
        (["train", "logs", "77"], "77", 3),
        (["train", "get", "deadbeef"], "deadbeef", 3),
        (["train", "wait", "deadbeef"], "deadbeef", 3),
        (["template", "get", "--name", "mnits"], "mnist", 3),
        (["workspace", "info", "nowhere"], "nowhere", 3),
        (["workspace", "set", "nowhere"], "nowhere", 3),
        (["workspace", "create", "a b"], "a b", 2),
        (["train", "frobnicate"], "frobnicate", 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_asking_for_what_is_not_there(home: Home, arguments: list[str], told: str, exits: int) -> None:
    done = home.run(*arguments, check=False)
    assert done.returncode == exits, done.stdout + done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
