from __future__ import annotations

from pathlib import Path

from kaos_backend.errors import all_errors
from kaos_cli import errors, main, reference

DOCS = Path(__file__).resolve().parents[3] / "docs" / "cli.md"


def test_the_page_is_what_the_commands_are() -> None:
    assert DOCS.read_text() == reference.render(), "run `make docs`"


def test_every_command_and_option_has_a_help_text() -> None:
    def check(command: object, path: str) -> None:
        assert command.help, path  # type: ignore[attr-defined]
        for parameter in command.params:  # type: ignore[attr-defined]
            assert parameter.help, f"{path} {parameter.name}"
        for name, below in getattr(command, "commands", {}).items():
            check(below, f"{path} {name}")

    for name in main.GROUPS:
        check(main.load(name), name)


def test_every_code_of_the_backend_has_an_exit_code() -> None:
    assert {error.code for error in all_errors()} <= errors.EXIT_CODES.keys()
