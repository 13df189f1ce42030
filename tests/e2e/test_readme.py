"""What the README shows is what happens: its commands run, and print what it shows but for the figures."""

from __future__ import annotations

import re

from tests.support.home import ROOT

README = (ROOT / "README.md").read_text()


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
