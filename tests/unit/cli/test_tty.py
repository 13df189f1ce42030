"""What a person at a terminal sees, through a real pseudo-terminal."""

from __future__ import annotations

import os
import pty
import re
import sys
from pathlib import Path

import pytest

from tests.support.bundles import write_data
from tests.unit.cli.fake import FakeBackend
from tests.unit.cli.samples import JOB_ID, job, stage


def at_a_terminal(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit code and everything that a terminal of 80 columns was sent."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update({"TERM": "xterm", **(env or {})})
        os.execv(sys.executable, [sys.executable, "-m", "kaos_cli", *arguments])
    shown = b""
    while True:
        try:
            piece = os.read(fd, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


@pytest.fixture
def running(backend: FakeBackend) -> FakeBackend:
    """A job that trains for as long as it takes to be asked 40 times."""
    done = job()
    backend.jobs["default"] = [job("running", stages=[stage("running", 3, 1)])]
    asked = []

    def count() -> None:
        asked.append(1)
        if len(asked) == 40:
            backend.jobs["default"] = [done]

    for _ in range(40):
        backend.fail_once(f"GET /workspaces/default/jobs/{JOB_ID}/summary", count)  # type: ignore[arg-type]
    return backend


def test_bars_while_waiting_and_a_table_at_the_end(running: FakeBackend, tmp_path: Path) -> None:
    code, shown = at_a_terminal("train", "deploy", "-d", str(write_data(tmp_path / "d")), "--wait")
    assert code == 0, shown
    assert "train" in shown
    assert "1/3" in shown
    assert "\x1b[32msuccess" in shown
    assert "─────" in shown
    # The cursor is given back.
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_without_colour(running: FakeBackend, tmp_path: Path, env: dict[str, str]) -> None:
    code, shown = at_a_terminal("train", "deploy", "-d", str(write_data(tmp_path / "d")), "--wait", env=env)
    assert code == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown)


def test_quiet_shows_no_bars(running: FakeBackend, tmp_path: Path) -> None:
    _, shown = at_a_terminal("train", "deploy", "-d", str(write_data(tmp_path / "d")), "--wait", "--quiet")
    assert "\x1b[?25l" not in shown
    assert "1/3" not in shown


def test_a_long_note_gives_way_to_the_bar(running: FakeBackend, tmp_path: Path) -> None:
    reason = "2 trials wait for 1 cpu (0 of 2 free), in use by job 0f3a11c2 of default/train"
    running.jobs["default"][0]["stages"][-1]["reason"] = reason
    _, shown = at_a_terminal("train", "deploy", "-d", str(write_data(tmp_path / "d")), "--wait")
    frames = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert re.search(r"train [━╺╸]{24} 1/3 [0-9:]+ -:--:-- 2 trials wait for.*…", frames)
