"""What the README shows is what happens: its commands run, and print what it shows but for the figures."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.home import KAOS, ROOT, Home

README = (ROOT / "README.md").read_text()


@dataclass(frozen=True)
class Shown:
    command: str
    output: str


def shown(block: str) -> Iterator[Shown]:
    """The commands (lines that start with `$ `) of a console block, each with the output below it."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.replace("\\\n", " ").partition("\n")
        yield Shown(command.strip(), output)


def blocks() -> list[list[Shown]]:
    return [list(shown(block)) for block in re.findall(r"^```console\n(.*?)^```", README, re.M | re.S)]


def shape(text: str) -> list[str]:
    """Lines without what differs from run to run: ids, figures, units, and the widths that follow them."""
    text = re.sub(r"\b[0-9a-f]{6}-[0-9a-f]{6}-[0-9a-f]{8}\b", "MODEL", text)
    text = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{6,}\b|\b[a-f]{6}\b", "ID", text)
    text = re.sub(r"\S+@\S+", "AUTHOR", text)
    text = re.sub(r"\b(\d+h)?\d+m\d+s\b", "N", text)
    text = re.sub(r"\d+(\.\d+)?(e-?\d+)?( ?([kMG]i?B|B|ms|s|m|h|min)\b)?", "N", text)
    text = re.sub(r"(N ?)+", "N", text)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return [re.sub(r"[-─━=]{2,}", "--", line) for line in lines if line]


def test_the_two_commands_are_made_by_the_makefile() -> None:
    made = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)", README))
    assert {"mnist", "test"} <= named <= made


def test_the_program_is_on_the_path_before_it_is_typed() -> None:
    assert 0 < README.index("export PATH=$PWD/.venv/bin") < README.index("$ kaos ")


def test_every_kaos_command_exists() -> None:
    from kaos_cli.main import build

    blocks = "\n".join(re.findall(r"```console.*?```|^    kaos .*?$", README, re.S | re.M))
    named = re.findall(r"\bkaos ((?:[a-z]+ ?)+)", blocks)
    assert named
    for line in named:
        command = build()
        for word in line.split():
            if not hasattr(command, "get_command"):
                break
            command = command.get_command(None, word)
            assert command is not None, f"README names `kaos {line}`"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_walk_through_prints_what_it_shows(home: Home, tmp_path: Path) -> None:
    """The main job, on real digits: every command of the README, in order, in an empty folder."""
    env = home.env | {"PATH": f"{KAOS.parent}:{os.environ['PATH']}"}
    walk = [step for block in blocks() for step in block if step.command.startswith("kaos ")]
    assert len(walk) >= 5
    for step in walk:
        done = subprocess.run(
            shlex.split(step.command), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, f"{step.command}\n{done.stdout}\n{done.stderr}\n{home.logs()}"
        if step.output.strip():
            assert shape(done.stdout) == shape(step.output), step.command

    # `best` is by validation accuracy; which trial is best on the test split differs between processors.
    trials = home.json("train", "info", "--sort-by", "val_accuracy")["trials"]
    assert len(trials) >= 6
    assert trials[0]["metrics"]["accuracy"] >= 0.97
    best = next(tmp_path.rglob("model.pt"))
    assert best.parent.name == trials[0]["model"]
    assert json.loads((best.parent / "metrics/metrics.json").read_text())["accuracy"] >= 0.97
