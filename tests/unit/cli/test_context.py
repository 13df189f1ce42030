"""Backends elsewhere by name: kept apart from their tokens, and spoken to over the network alone."""

from __future__ import annotations

import io
import json
import sys

import pytest

from kaos_cli import __version__, contexts
from kaos_cli.config import Home
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake import TOKEN, FakeBackend, Refused

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, backend: FakeBackend) -> FakeBackend:
    """A backend that no variable leads to."""
    monkeypatch.delenv("KAOS_ENDPOINT")
    monkeypatch.delenv("KAOS_TOKEN")
    return backend


def test_a_context_is_added_used_listed_and_forgotten(cli: Cli, lab: FakeBackend, home: Home) -> None:
    assert cli("context", "add", "lab", lab.url, "--token", TOKEN).code == 0
    # The same again is no error.
    assert cli("context", "add", "lab", lab.url + "/", "--token", TOKEN).code == 0
    assert cli("workspace", "list", "--context", "lab").code == 0
    assert cli("context", "use", "lab").code == 0
    assert cli("workspace", "list").code == 0
    assert "GET /workspaces" in lab.requests
    listed = cli("context", "list", "--json")
    assert listed.json["current"] == "lab"
    assert listed.json["contexts"][0] == {
        "name": "lab", "url": lab.url, "ca_cert": False, "token": True, "workspace": None, "insecure": False,
    }  # fmt: skip
    shown = cli("context", "list")
    assert "lab" in shown.out
    assert TOKEN not in listed.out + shown.out + home.config_file.read_text()
    for name in ("config.json", "credentials.json"):
        assert (home.path / name).stat().st_mode & 0o777 == 0o600
    # No server was started here.
    assert not (home.path / "backend.json").exists()
    assert "they use local now" in cli("context", "rm", "lab").out
    assert TOKEN not in (home.path / "credentials.json").read_text()
    assert cli("context", "list", "--json").json["current"] == "local"


def test_init_adds_and_uses_it(
    cli: Cli, lab: FakeBackend, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(TOKEN + "\n"))
    assert cli("init", "-e", lab.url, "--token", "-").code == 0
    assert home.contexts()[1] == "127.0.0.1"
    assert cli("workspace", "list").code == 0


def test_each_context_has_a_workspace_of_its_own(
    cli: Cli, lab: FakeBackend, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("init", "-e", lab.url, "--name", "lab", "--token", TOKEN)
    lab.workspaces["mine"] = {}
    assert cli("workspace", "set", "mine").code == 0
    assert home.workspace(None) == "mine"
    monkeypatch.setenv("KAOS_CONTEXT", "local")
    assert Home(home.path, "local").workspace(None) == "default"
    # Another token for it does not lose that.
    monkeypatch.delenv("KAOS_CONTEXT")
    cli("context", "add", "lab", lab.url, "--token", TOKEN)
    assert home.workspace(None) == "mine"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("lab", "http://10.0.0.7:8080"), "not encrypted"),
        (("lab", "http://localhost.evil.example"), "not encrypted"),
        (("lab", "ftp://x"), "no backend address"),
        (("lab", "https://me:pw@lab"), "without more"),
        (("lab", "https://lab:99999"), "no backend address"),
        (("local", "https://lab"), "is the backend of this machine"),
        (("../lab", "https://lab"), "no name of a context"),
    ],
)
def test_what_can_be_no_context(cli: Cli, home: Home, args: tuple[str, ...], told: str) -> None:
    refused = cli("context", "add", *args, "--token", "x")
    assert refused.code == 2
    assert told in refused.err
    assert not home.path.exists()


def test_nothing_is_kept_of_one_that_does_not_answer_or_know_the_token(
    cli: Cli, lab: FakeBackend, home: Home
) -> None:
    assert cli("context", "add", "lab", NOBODY, "--token", "x").code == 4
    assert cli("context", "add", "lab", lab.url, "--token", "wrong").code == 4
    assert home.contexts() == ({}, "local")
    assert cli("context", "add", "lab", NOBODY, "--token", "x", "--no-check").code == 0
    other = cli("context", "add", "lab", lab.url, "--token", TOKEN)
    assert other.code == 2
    assert "--force" in other.err
    assert cli("context", "add", "lab", lab.url, "--token", TOKEN, "--force").code == 0


def test_a_context_that_is_not_there_is_told_with_one_that_is(cli: Cli, lab: FakeBackend) -> None:
    cli("context", "add", "lab", lab.url, "--token", TOKEN)
    for args in (("train", "list", "--context", "lap"), ("context", "use", "lap"), ("context", "rm", "lap")):
        missing = cli(*args)
        assert missing.code == 3
        assert "did you mean 'lab'?" in missing.err


def test_what_is_about_this_machine_says_so(cli: Cli, lab: FakeBackend) -> None:
    cli("init", "-e", lab.url, "--name", "lab", "--token", TOKEN)
    for name in ("up", "down"):
        refused = cli(name)
        assert refused.code == 2
        assert "context lab is a backend elsewhere" in refused.err
        assert f"kaos {name} --context local" in refused.err


def test_another_version_is_said_once_and_another_api_refused(
    cli: Cli, lab: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("init", "-e", lab.url, "--name", "lab", "--token", TOKEN)
    monkeypatch.setattr("kaos_cli.remote.__version__", "9.9.9")
    said = cli("workspace", "list")
    assert said.err.count(f"is kaos {__version__}, this is kaos 9.9.9") == 1
    assert json.loads(cli("workspace", "list", "--json").out)
    monkeypatch.setattr("kaos_cli.remote.API", 2)
    refused = cli("workspace", "list")
    assert refused.code == 4
    assert "speaks version 1 of the API" in refused.err


def test_who_asked_too_often_waits_and_is_told(cli: Cli, lab: FakeBackend) -> None:
    cli("init", "-e", lab.url, "--name", "lab", "--token", TOKEN)

    def refuse() -> None:
        raise Refused(429, "too_many_requests", "token ada may make 9 requests a second", retry_after_s=0.01)

    lab.fail_once("GET /workspaces", refuse)
    waited = cli("workspace", "list")
    assert waited.code == 0
    assert "token ada may make 9 requests a second; waiting" in waited.err


def test_a_token_of_the_environment_goes_to_no_context_that_has_one(
    cli: Cli, lab: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("init", "-e", lab.url, "--name", "lab", "--token", TOKEN)
    monkeypatch.setenv("KAOS_TOKEN", "for another one")
    assert cli("workspace", "list").code == 0


def test_broken_settings_that_are_written_anew_are_kept_aside(cli: Cli, home: Home, lab: FakeBackend) -> None:
    home.create()
    home.config_file.write_text('{"contexts": {"lab": {"url": 7}}}')
    # Where there never was a context, what is meant is clear.
    assert cli("workspace", "list").code == 0
    contexts.write_tokens(home.path, {"lab": "token"})
    assert cli("workspace", "list").code == 1
    home.set_workspace("mine")
    assert home.workspace(None) == "mine"
    assert home.config_file.with_suffix(".json.broken").exists()
