"""`kaos train deploy` against real HTTP: what is sent, what is said, and what happens when it breaks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.bundles import write_data, write_grid, write_source
from tests.unit.cli import test_contract
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake import FakeBackend, Refused
from tests.unit.cli.samples import JOB_ID, SOURCE

PUT = "PUT /workspaces/default/bundles"


def puts(backend: FakeBackend) -> int:
    return sum(request.startswith("PUT") for request in backend.requests)


def test_sends_source_data_and_grid_and_says_so(cli: Cli, backend: FakeBackend, tmp_path: Path) -> None:
    backend.answer = {
        "grid": {
            "id": "ab12cd" * 5,
            "trials": 4,
            "axes": {"lr": [0.1, 0.01], "x": [1, 2]},
            "fixed": {"k": "v"},
        }
    }
    src, data = write_source(tmp_path / "mnist"), write_data(tmp_path / "digits")
    grid = write_grid(tmp_path / "g.json", {"lr": [0.1, 0.01], "x": [1, 2], "k": "v"})
    done = cli(
        "train",
        "deploy",
        "-s",
        src,
        "-d",
        data,
        "-h",
        grid,
        "-p",
        3,
        "--cpu",
        0.5,
        "--memory",
        "1Gi",
        "--gpu",
        1,
        "--tries",
        2,
        "--timeout",
        "1h30m",
    )
    assert done.code == 0, done.err
    request = backend.deploys[0]
    assert request.keys() == test_contract.REQUEST.keys()
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
    assert request["source"] == backend.heads["default", "source"]["id"]
    assert request["data"] == backend.heads["default", "data"]["id"]
    assert request["hyper"] == {"lr": [0.1, 0.01], "x": [1, 2], "k": "v"}
    amounts = {"cpu": 0.5, "memory": "1Gi", "gpu": 1, "tries": 2, "timeout_s": 5400.0}
    assert request["resources"] == amounts
    assert (request["parallelism"], request["retry"]) == (3, False)
    assert "@" in request["author"]
    size = sum(path.stat().st_size for path in src.iterdir())
    assert done.out == (
        f"source  mnist:{request['source'][:6]}  2 files, {size} B, all new\n"
        f"data    digits:{request['data'][:6]}  2 files, 260 B, all new\n"
        "grid    ab12cd  4 trials\n"
        "        lr  0.1, 0.01\n"
        "        x   1, 2\n"
        "        k   v  (fixed)\n"
        f"job     {JOB_ID}  (runs build and train, 2 at a time)\n"
    )
    assert "kaos train logs -f" in done.err


def test_same_again_sends_nothing(cli: Cli, backend: FakeBackend, tmp_path: Path) -> None:
    data = write_data(tmp_path / "d")
    cli("train", "deploy", "-d", data)
    why = "these inputs were deployed already and every trial succeeded"
    backend.answer = {"status": "unchanged", "stages": [], "message": why}
    done = cli("train", "deploy", "-d", data)
    assert puts(backend) == 1
    assert "nothing new to send" in done.out
    assert done.out.endswith(f"nothing to run: {why}\njob     {JOB_ID}\n")
    assert done.err == "  → kaos train info 4f1c0de2 shows it\n"
    assert cli("train", "deploy", "-d", data, "-q").err == ""


def test_only_new_content_is_sent(cli: Cli, backend: FakeBackend, tmp_path: Path) -> None:
    """The fake checks each byte: what is not sent comes from the base by hash, renames included."""
    data = write_data(tmp_path / "d", {"a": b"1" * 100, "b": b"2" * 100, "c": b"3"})
    cli("train", "deploy", "-d", data)
    (data / "a").rename(data / "z")
    (data / "b").write_bytes(b"changed")
    (data / "c").unlink()
    done = cli("train", "deploy", "-d", data, "--json").json
    assert done["packed"]["data"]["new_files"] == 1
    assert done["packed"]["data"]["new_bytes"] == 7
    assert backend.heads["default", "data"]["contents"] == {"b": b"changed", "z": b"1" * 100}


def test_json_is_the_answer_and_nothing_else(cli: Cli, backend: FakeBackend, tmp_path: Path) -> None:
    done = cli("train", "deploy", "-d", write_data(tmp_path / "d", {"f": b"", ".DS_Store": b""}), "--json")
    assert done.err == ""
    assert {key: done.json[key] for key in ("job", "status", "stages")} == {
        "job": JOB_ID, "status": "started", "stages": ["build", "train"]
    }  # fmt: skip
    assert done.json["packed"]["data"]["ignored"] == [".DS_Store"]


def test_what_stays_is_named_and_what_is_left_out_too(cli: Cli, backend: FakeBackend, tmp_path: Path) -> None:
    done = cli("train", "deploy", "-d", write_data(tmp_path / "d", {"f": b"", ".git/HEAD": b""}))
    assert f"source  mnist:{SOURCE['id'][:6]}  as before" in done.out
    assert "left out: .git" in done.out


def test_waiting_for_the_other_half_is_said(cli: Cli, backend: FakeBackend, tmp_path: Path) -> None:
    backend.answer = {
        "status": "waiting", "job": None, "source": None, "grid": None, "message": "no source yet",
        "hint": "deploy one with -s",
    }  # fmt: skip
    done = cli("train", "deploy", "-d", write_data(tmp_path / "d"), "--wait")
    assert done.code == 0
    assert done.out.endswith("no source yet\n")
    assert done.err == "  → deploy one with -s\n"


def test_long_grids_show_head_and_count_in_80_columns(cli: Cli, backend: FakeBackend, tmp_path: Path) -> None:
    axes = {f"axis{i}": list(range(100)) for i in range(20)} | {"text": ["word " * 30, "x"]}
    backend.answer = {"grid": {"id": "ab12cd" * 5, "trials": 10**6, "axes": axes, "fixed": {"odd": "a\x1bb"}}}
    out = cli("train", "deploy", "-d", write_data(tmp_path / "d")).out
    assert "(100 values)" in out
    assert "and 10 more, 22 in all" in out
    assert "1,000,000 trials" in out
    assert max(map(len, out.splitlines())) <= 80


def test_bad_input_reaches_no_backend(cli: Cli, backend: FakeBackend, tmp_path: Path) -> None:
    good = write_data(tmp_path / "d")
    for arguments in (
        ["-s", tmp_path / "nowhere"],
        ["-s", write_source(tmp_path / "s", mode=0o644)],
        ["-h", write_grid(tmp_path / "g.json", "{")],
        ["--memory", "lots"],
        ["-w", "no/slash"],
    ):
        done = cli("train", "deploy", "-d", good, *arguments)
        assert done.code == 2
    assert backend.requests == []


def test_unknown_workspace_suggests_the_one_meant(cli: Cli, backend: FakeBackend, tmp_path: Path) -> None:
    backend.workspaces["vision"] = {}
    done = cli("train", "deploy", "-w", "vison", "-d", write_data(tmp_path / "d"))
    assert done.code == 3
    assert "did you mean 'vision'" in done.err
    # One hint a line.
    assert "  → kaos workspace create vison makes it\n" in done.err


def test_somebody_else_deployed_in_between(cli: Cli, backend: FakeBackend, tmp_path: Path) -> None:
    data = write_data(tmp_path / "d")
    cli("train", "deploy", "-d", data)
    (data / "new").write_bytes(b"x")

    def stale() -> None:
        raise Refused(409, "stale_base")

    from kaos_cli import bundle

    new_id = bundle.read(data, "data", tmp_path / "c").id
    backend.fail_once(f"{PUT}/data/{new_id}", stale)
    done = cli("train", "deploy", "-d", data)
    assert done.code == 0, done.err
    assert backend.heads["default", "data"]["contents"]["new"] == b"x"


def test_refusal_in_the_middle_of_a_big_upload_is_heard(
    cli: Cli, backend: FakeBackend, tmp_path: Path
) -> None:
    data = write_data(tmp_path / "d", {"big": os.urandom(40 << 20)})
    from kaos_cli import bundle

    made = bundle.read(data, "data", tmp_path / "c")

    def full() -> None:
        raise Refused(507, "disk_full", "no space left", "free some space and try again")

    backend.fail_once(f"{PUT}/data/{made.id}", full)
    done = cli("train", "deploy", "-d", data)
    assert done.code == 1
    assert "no space left" in done.err
    assert backend.deploys == []


@pytest.mark.parametrize("request_", ["POST /workspaces/default/deploys", "GET /health"])
def test_a_connection_that_breaks_is_tried_again(
    cli: Cli, backend: FakeBackend, tmp_path: Path, request_: str
) -> None:
    if request_ == "GET /health":
        cli("train", "deploy", "-d", write_data(tmp_path / "first"))
        request_ = "GET /workspaces/default/bundles/data/head/tree"
    backend.fail_once(request_, lambda: "drop")
    done = cli("train", "deploy", "-d", write_data(tmp_path / "d", {"other": b""}))
    assert done.code == 0, done.err


def test_a_retry_is_never_asked_for_twice(cli: Cli, backend: FakeBackend) -> None:
    backend.fail_once("POST /workspaces/default/deploys", lambda: "drop")
    done = cli("train", "deploy", "--retry")
    assert done.code == 4
    assert "lost the connection" in done.err
    assert backend.requests.count("POST /workspaces/default/deploys") == 1


def test_file_that_changes_while_it_is_sent_stops_the_upload(
    cli: Cli, backend: FakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_data(tmp_path / "d", {"a": os.urandom(3 << 20), "b": os.urandom(3 << 20)})
    from kaos_cli import upload

    real = upload.missing

    def meanwhile(*args: object) -> object:
        (data / "b").write_bytes(b"other")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(upload, "missing", meanwhile)
    done = cli("train", "deploy", "-d", data)
    assert done.code == 1
    assert "changed while it was being packed" in done.err
    assert backend.deploys == []
    assert backend.staged == {}


def test_ctrl_c_while_sending_says_that_nothing_was_deployed(backend: FakeBackend, tmp_path: Path) -> None:
    import signal

    from kaos_cli import bundle

    src, data = write_source(tmp_path / "s"), write_data(tmp_path / "d", {"big": os.urandom(40 << 20)})
    made = bundle.read(data, "data", tmp_path / "c")
    asked, interrupted = threading.Event(), threading.Event()

    def held() -> str:
        asked.set()
        interrupted.wait(30)
        return "drop"

    backend.fail_once(f"{PUT}/data/{made.id}", held)
    sending = subprocess.Popen(
        [sys.executable, "-m", "kaos_cli", "train", "deploy", "-s", src, "-d", data],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert asked.wait(30)
    assert len(backend.staged) == 1
    sending.send_signal(signal.SIGINT)
    _, err = sending.communicate(timeout=30)
    interrupted.set()
    assert sending.returncode == 130
    assert err == "kaos: interrupted while the data was being sent; nothing was deployed\n"
    # The source, which was there already, is not left waiting for a deploy that never comes.
    assert backend.staged == {}
    assert backend.deploys == []
