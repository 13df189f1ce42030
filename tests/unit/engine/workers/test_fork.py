"""Launchers that are forked of a server which has imported what they run."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from kaos_backend.engine.workers.process.fork import ForkServer, trials
from kaos_backend.engine.workers.process.launch import Launcher

from .conftest import launcher_request, text_of, until

PROGRAM = "kaos_pipelines.build"


@pytest.fixture
def server() -> Iterator[ForkServer]:
    server = ForkServer(PROGRAM, f"{PROGRAM}.main")
    yield server
    server.close()


def run(
    launcher: Launcher, log: Path, env: Mapping[str, str] | None = None, *argv: str
) -> tuple[int | None, str]:
    command = argv or (sys.executable, "-m", PROGRAM)
    request = launcher_request(command, log, env=dict(env or {}))
    return launcher.run(request, threading.Event()).code, text_of(log)


def test_launchers_of_trials_share_an_interpreter(tmp_path: Path) -> None:
    launchers = [Launcher(trials().launch) for _ in range(2)]
    assert {psutil.Process(one.pid).ppid() for one in launchers} == {trials().pid}
    for number, one in enumerate(launchers):
        assert run(one, tmp_path / f"{number}", {}, "/bin/sh", "-c", f"exit {number}") == (number, "")
        one.close()
        assert one.pid is None


def test_a_program_that_is_imported_starts_no_interpreter(server: ForkServer, tmp_path: Path) -> None:
    launcher = Launcher(server.launch)
    assert psutil.Process(launcher.pid).ppid() == server.pid
    # Each run knows its own variables, and none of an earlier one's.
    code, said = run(launcher, tmp_path / "1", {"KAOS_IMAGE": "secret", "PATH": "/nowhere"})
    assert (code, said.split(" not set")[0]) == (1, "KAOS_SOURCE_ID")
    code, said = run(launcher, tmp_path / "2")
    assert (code, said.split(" not set")[0]) == (1, "KAOS_IMAGE, KAOS_SOURCE_ID")
    # What is another program is executed.
    assert run(launcher, tmp_path / "3", {}, "/bin/sh", "-c", "echo $0; exit 7") == (7, "/bin/sh")
    launcher.close()
    assert launcher.pid is None


def test_what_waits_to_run_goes_with_its_launcher_and_can_be_done_without(
    server: ForkServer, tmp_path: Path
) -> None:
    def waiting(launcher: Launcher) -> psutil.Process:
        own = psutil.Process(launcher.pid)
        until(lambda: len(own.children()) == 1, "a child that waits")
        return own.children()[0]

    used, killed, unused = (Launcher(server.launch) for _ in range(3))
    children = [waiting(launcher) for launcher in (used, killed, unused)]
    children[1].kill()
    for launcher in (used, killed):
        assert run(launcher, tmp_path / str(launcher.pid))[0] == 1
    assert not children[0].is_running()
    unused.close()
    children[2].wait(20)
    used.close()
    killed.close()


def test_builds_outlive_the_server_and_the_next_has_another(server: ForkServer, tmp_path: Path) -> None:
    launcher = Launcher(server.launch)
    first = server.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: server.pid is None, "the server to be gone")
    assert run(launcher, tmp_path / "1")[0] == 1
    other = Launcher(server.launch)
    assert server.pid not in (first, None)
    assert run(other, tmp_path / "2")[0] == 1
    left = psutil.Process(launcher.pid), psutil.Process(other.pid)
    launcher.close()
    other.close()
    psutil.wait_procs(left, 20)
    assert not any(process.is_running() for process in left)


def test_without_a_server_launchers_start_alone(tmp_path: Path) -> None:
    server = ForkServer(PROGRAM, "kaos_pipelines.nothing_of_that_name")
    launcher = Launcher(server.launch)
    assert run(launcher, tmp_path / "1", {}, "/bin/sh", "-c", "echo up") == (0, "up")
    launcher.close()
    assert server.pid is None


def test_a_server_ends_with_its_engine(server: ForkServer) -> None:
    server.warm_up()
    process = psutil.Process(server.pid)
    # Its first launcher is there, and nobody reads of it.
    until(lambda: bool(process.children()), "a launcher to be forked ahead")
    # What an engine's death is to it.
    server._socket.close()  # type: ignore[union-attr]
    assert process.wait(20) == 0
