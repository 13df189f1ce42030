"""The engine's end of a fork server (`forkserver.py`)."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import IO

from kaos_backend.engine.workers.process.launch import Process, alone

# What takes longer is no help.
_PATIENCE_S = 10.0
_LONGEST = 32


class ForkServer:
    """Starts launchers without an interpreter for each, with a `program` ones that have imported its modules.

    Where that fails, launchers like any other. Threads may share it.
    """

    def __init__(self, program: str = "", *modules: str) -> None:
        self._arguments = (program, *modules)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        # The engine's ends of the pipes of a launcher that was asked for: requests, replies.
        self._asked: tuple[int, int] | None = None

    def warm_up(self) -> None:
        """Have it import the modules and fork a launcher in the background, unless it has.

        Also in place of one that died. Raises OSError.
        """
        with self._lock:
            self._ask()

    def launch(self) -> Process:
        """A launcher, forked if possible. Raises OSError."""
        with self._lock:
            try:
                return self._fork()
            except OSError:
                # The next one may have better luck.
                self._end()
        return alone()

    def close(self) -> None:
        """End the server; its launchers live on. Idempotent."""
        with self._lock:
            self._end()

    @property
    def pid(self) -> int | None:
        """The server's process, if there is one."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def _ensure(self) -> socket.socket:
        if self._socket is not None and self.pid is not None:
            return self._socket
        self._end()
        names = (name.partition(".")[0] for name in (__name__, *self._arguments) if name)
        found = map(importlib.util.find_spec, names)
        paths = (Path(spec.origin).parents[1] for spec in found if spec is not None and spec.origin)
        env = {name: value for name, value in os.environ.items() if not name.startswith(("KAOS_", "PACH"))}
        env["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(map(str, paths)))
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", f"{__package__}.forkserver", *self._arguments],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=env,
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.settimeout(_PATIENCE_S)
        self._socket = ours
        return ours

    def _ask(self) -> tuple[int, int]:
        """Ask for a launcher, unless one is on its way; the ends of its pipes."""
        server = self._ensure()
        if self._asked is None:
            requests, stdin = os.pipe()
            stdout, replies = os.pipe()
            self._asked = stdin, stdout
            try:
                socket.send_fds(server, [b"f"], [requests, replies])
            finally:
                os.close(requests)
                os.close(replies)
        return self._asked

    def _fork(self) -> Process:
        stdin, stdout = self._ask()
        assert self._socket is not None
        answer, watch, _, _ = socket.recv_fds(self._socket, _LONGEST, 1)
        if not watch:
            raise ChildProcessError("the fork server has no launcher")
        self._asked = None
        return _Forked(int(answer), watch[0], stdin, stdout)

    def _end(self) -> None:
        for fd in self._asked or ():
            os.close(fd)
        self._asked = None
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._socket = None


class _Forked:
    """A process of the fork server's, with what is used of `subprocess.Popen`."""

    def __init__(self, pid: int, watch: int, stdin: int, stdout: int) -> None:
        self.pid = pid
        self.stdin: IO[bytes] | None = os.fdopen(stdin, "wb", 0)
        self.stdout: IO[bytes] | None = os.fdopen(stdout, "rb", 0)
        self._watch = watch
        weakref.finalize(self, os.close, watch)

    def poll(self) -> int | None:
        """0 when it has ended, however that was."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        if self._ended(timeout) is None:
            raise subprocess.TimeoutExpired("launcher", timeout or 0.0)
        return 0

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._watch, signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        poll = select.poll()
        poll.register(self._watch, select.POLLIN)
        return 0 if poll.poll(None if timeout is None else timeout * 1000) else None


@functools.cache
def trials() -> ForkServer:
    """The fork server for trials, one for all homes of this process."""
    server = ForkServer()
    atexit.register(server.close)
    return server


@functools.cache
def builds(builder: str) -> ForkServer:
    """The fork server for builds with "venv" or "docker", one for all homes of this process."""
    package = "kaos_pipelines.build"
    server = ForkServer(package, f"{package}.main", f"{package}.with_{builder}")
    atexit.register(server.close)
    return server
