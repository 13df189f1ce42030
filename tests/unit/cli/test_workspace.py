from __future__ import annotations

import pytest

from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake import FakeBackend


def test_create_list_set_info_kill(cli: Cli, backend: FakeBackend) -> None:
    assert cli("workspace", "create", "vision").out == "workspace vision created\n"
    assert cli("workspace", "set", "vision").out == "using workspace vision\n"
    listed = cli("workspace", "list").out.splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [["default", "0"], ["*", "vision"]]
    assert cli("workspace", "info").out.startswith("workspace  vision\nsource     none yet\n")
    assert cli("train", "list").out == "no jobs in workspace vision yet\n"
    assert cli("workspace", "kill", "vision", "-y").out.startswith("workspace vision is gone (0 jobs)\n")
    assert cli("workspace", "list", "--json").json["current"] == "default"


def test_environment_and_flag_go_before_the_one_set(
    cli: Cli, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.workspaces |= {"a": {}, "b": {}, "c": {}}
    cli("workspace", "set", "a")
    assert "workspace a" in cli("train", "list").out
    monkeypatch.setenv("KAOS_WORKSPACE", "b")
    assert "workspace b" in cli("train", "list").out
    assert "workspace c" in cli("train", "list", "-w", "c").out
    assert cli("workspace", "info", "--json").json["name"] == "b"
    assert "KAOS_WORKSPACE" in cli("workspace", "set", "c").err


@pytest.mark.parametrize("name", ["a b", "no/slash", ".."])
def test_what_can_be_no_name_reaches_no_backend(cli: Cli, backend: FakeBackend, name: str) -> None:
    for verb in ("create", "set", "info", "kill"):
        done = cli("workspace", verb, name)
        assert done.code == 2
        assert name in done.err
    assert backend.requests == []


def test_unknown_one_is_not_set(cli: Cli, backend: FakeBackend) -> None:
    done = cli("workspace", "set", "defualt")
    assert done.code == 3
    assert "did you mean 'default'" in done.err
    assert cli("workspace", "list", "--json").json["current"] == "default"


def test_create_twice(cli: Cli, backend: FakeBackend) -> None:
    cli("workspace", "create", "x")
    assert cli("workspace", "create", "x").code == 2


def test_kill_without_a_yes_and_without_a_terminal_kills_nothing(
    cli: Cli, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    done = cli("workspace", "kill", "default")
    assert done.code == 2
    assert "-y" in done.err
    assert "default" in backend.workspaces


@pytest.mark.parametrize(("typed", "code", "left"), [("n\n", 1, True), ("\n", 1, True), ("y\n", 0, False)])
def test_kill_asks(
    cli: Cli, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch, typed: str, code: int, left: bool
) -> None:
    import io

    class Person(io.StringIO):
        def isatty(self) -> bool:
            return True

    backend.workspaces["x"] = {}
    monkeypatch.setattr("sys.stdin", Person(typed))
    assert cli("workspace", "kill", "x").code == code
    assert ("x" in backend.workspaces) is left


def test_kill_of_the_current_one_says_which_is_used_now(
    cli: Cli, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("x", "y", "z"):
        cli("workspace", "create", name)
    cli("workspace", "set", "x")
    assert cli("workspace", "kill", "y", "-y").out == "workspace y is gone (0 jobs)\n"
    assert cli("workspace", "kill", "x", "-y").out == (
        "workspace x is gone (0 jobs)\nit was the one that commands used; they use default now\n"
    )
    assert cli("workspace", "list", "--json").json["current"] == "default"
    monkeypatch.setenv("KAOS_WORKSPACE", "z")
    assert "KAOS_WORKSPACE=z is still set" in cli("workspace", "kill", "z", "-y").err
