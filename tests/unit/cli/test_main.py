"""The door: what is imported, what a mistake looks like, which exit code it has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kaos_cli import main
from kaos_cli.errors import KaosError
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake import FakeBackend, Refused

HEAVY = {
    "requests", "urllib3", "tabulate", "zstandard", "msgspec", "blake3", "pathspec", "psutil", "http.client",
    "fastapi", "grpc", "pachyderm_sdk", "kaos_backend", "sqlite3", "asyncio", "numpy", "kaos_cli.client",
    "kaos_cli.commands.train", "kaos_cli.bundle",
}  # fmt: skip


def imported(*arguments: str) -> set[str]:
    """The modules of a whole run of the program."""
    code = (
        "import os, sys\nfrom kaos_cli import main\nos._exit = sys.exit\n"
        f"try:\n main.main({list(arguments)!r})\nexcept SystemExit: pass\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_help_and_version_import_nothing_heavy() -> None:
    assert not imported("--help") & HEAVY
    assert not imported("--version") & (HEAVY | {"rich.console"})


def test_a_deploy_imports_neither_rich_nor_tabulate(backend: FakeBackend, tmp_path: Path) -> None:
    from tests.support.bundles import write_data

    data = write_data(tmp_path / "d")
    names = imported("train", "deploy", "-d", str(data))
    assert "kaos_cli.pack" in names
    assert not names & {"rich.console", "tabulate", "requests", "urllib3", "psutil", "asyncio", "pathspec"}
    # Nothing to send: what packs is not needed either.
    assert not imported("train", "deploy", "-d", str(data)) & {"kaos_cli.pack", "zstandard", "tarfile"}


@pytest.mark.parametrize("name", main.GROUPS)
def test_every_command_loads_and_has_help(cli: Cli, name: str) -> None:
    done = cli(name, "--help")
    assert done.code == 0
    assert main.GROUPS[name].help.split(";")[0].split(",")[0][:20] in done.out


def test_top_level_help_fits_80_columns(cli: Cli) -> None:
    out = cli("--help").out
    assert max(map(len, out.splitlines())) <= 80
    for name in main.GROUPS:
        assert f" {name} " in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["trian"], "Did you mean 'train'"),
        (["train", "frobnicate"], "frobnicate"),
        (["train", "info", "--sortby", "x"], "--sort-by"),
        (["train", "logs", "--trial", "x"], "--trial"),
        (["train", "logs", "--tail", "0"], "--tail"),
        (["train", "deploy"], "nothing to deploy"),
        (["workspace", "create"], "NAME"),
        (["train", "info", "--sort-by", "a:asc", "--desc"], "both ways"),
        (["train", "logs", "--build", "--trial", "0"], "--build and --trial"),
    ],
)
def test_wrong_use_is_2_and_says_where_help_is(cli: Cli, arguments: list[str], told: str) -> None:
    done = cli(*arguments)
    assert done.code == 2
    assert told in done.err
    assert "→" in done.err
    assert done.out == ""


def test_errors_are_json_under_json(cli: Cli) -> None:
    done = cli("train", "logs", "--trial", "x", "--json")
    assert done.code == 2
    assert done.out == ""
    error = json.loads(done.err)["error"]
    assert (error["code"], error["hint"]) == ("usage", "kaos train logs --help")


def test_errors_of_the_backend_keep_code_message_hint_and_fields(cli: Cli, backend: FakeBackend) -> None:
    def refuse() -> None:
        raise Refused(409, "ambiguous", "'a' is several", "say more", candidates=["aa", "ab"])

    backend.fail_once("GET /workspaces/default/jobs/a", refuse)
    backend.fail_once("GET /workspaces/default/jobs/a", refuse)
    error = json.loads(cli("train", "info", "a", "--json").err)["error"]
    assert error == {
        "code": "ambiguous",
        "message": "'a' is several",
        "hint": "say more",
        "fields": {"candidates": ["aa", "ab"]},
    }
    told = cli("train", "info", "a").err
    assert "'a' is several" in told
    assert "aa, ab" in told
    assert "→ say more" in told


def test_a_busy_backend_is_asked_again(cli: Cli, backend: FakeBackend) -> None:
    def busy() -> None:
        raise Refused(503, "busy", "all places are taken", retry_after_s=0)

    backend.fail_once("POST /workspaces", busy)
    backend.fail_once("POST /workspaces", busy)
    assert cli("workspace", "create", "w").code == 0
    assert backend.requests.count("POST /workspaces") == 3


@pytest.mark.parametrize(
    ("status", "code", "exits"),
    [
        (404, "no_such_job", 3),
        (401, "unauthorized", 4),
        (503, "engine_unavailable", 4),
        (422, "never_fits", 2),
        (507, "disk_full", 1),
        (500, "internal", 1),
        (418, "teapot", 1),
    ],
)
def test_exit_codes_follow_the_code(
    cli: Cli, backend: FakeBackend, status: int, code: str, exits: int
) -> None:
    def refuse() -> None:
        raise Refused(status, code)

    backend.fail_once("GET /workspaces/default/jobs", refuse)
    assert cli("train", "list").code == exits


def test_full_disk_is_told_as_such(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/x")

    monkeypatch.setattr(main, "build", full)
    done = cli("status", "--json")
    assert done.code == 1
    assert json.loads(done.err)["error"]["code"] == "disk_full"


def test_a_bug_is_one_line_and_a_traceback_only_when_asked(
    monkeypatch: pytest.MonkeyPatch, cli: Cli, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("oops")

    monkeypatch.setattr(main, "build", broken)
    done = cli("status")
    assert done.code == 1
    assert "Traceback" not in done.err
    assert "--debug" in done.err
    assert main.run(["status"], as_json=False, debug=True) == 1
    assert "Traceback" in capfd.readouterr().err


def test_debug_shows_where_an_error_came_from() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kaos_cli", "train", "deploy", "--debug"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["template", "list"], ["template", "list", "--json"]])
def test_a_reader_that_has_seen_enough_is_no_error(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-u", "-m", "kaos_cli", *arguments], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert "Error" not in done.stderr
    assert done.returncode == 0 or arguments == ["--help"]


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_exit_code(closed: str, backend: FakeBackend) -> None:
    """Nor does an answer end in a socket that was given the number of stdout."""
    for arguments, exits in (("train list", 0), ("train list --json", 0), ("train info nope -q", 3)):
        command = f"{sys.executable} -m kaos_cli {arguments} {closed}"
        done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True)
        assert done.returncode == exits, done.stderr
        assert "Traceback" not in done.stderr
        assert "Exception" not in done.stderr


def test_nobody_reads_stderr(backend: FakeBackend) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "kaos_cli", "train", "info", "nope"], stderr=write)
    os.close(write)
    assert done.returncode == 3


@pytest.mark.parametrize("arguments", [["train", "list"], ["train", "list", "--json"], ["--help"]])
def test_an_answer_that_cannot_be_written_is_a_failure(backend: FakeBackend, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "kaos_cli", *arguments], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert "no space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_h_is_help_everywhere_but_where_it_is_the_grid(cli: Cli) -> None:
    for arguments in (["-h"], ["train", "-h"], ["train", "info", "-h"], ["up", "-h"]):
        done = cli(*arguments)
        assert (done.code, done.err) == (0, "")
        assert "Usage: kaos" in done.out
    done = cli("train", "deploy", "-h")
    assert done.code == 2
    assert "→ kaos train deploy --help" in done.err


def test_quiet_gives_no_hints(cli: Cli, backend: FakeBackend) -> None:
    assert "→" in cli("train", "info", "dead").err
    assert cli("train", "info", "dead", "-q").err == "kaos: workspace default has no job 'dead'\n"


def test_endpoint_without_token_or_backend(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAOS_ENDPOINT", "http://127.0.0.1:9")
    assert cli("train", "list").code == 2
    monkeypatch.setenv("KAOS_TOKEN", "x")
    done = cli("train", "list")
    assert done.code == 4
    assert "http://127.0.0.1:9" in done.err
    monkeypatch.setenv("KAOS_ENDPOINT", "ftp://x")
    assert cli("train", "list").code == 2


def test_every_code_has_a_known_exit_code() -> None:
    from kaos_cli.errors import EXIT_CODES, MEANINGS, OK

    assert set(EXIT_CODES.values()) == MEANINGS.keys() - {OK}
    assert KaosError("of the future", "").exit_code == 1
