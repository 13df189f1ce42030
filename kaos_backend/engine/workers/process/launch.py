"""The engine's end of a launcher (`launcher.py`): one datum at a time, and nothing of it left afterwards.

Whatever happens to a launcher, its datum ends: it kills the tree when the engine's end of the pipe closes,
the kernel kills the command when the launcher dies, and `run` sweeps what a killed launcher left.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

from kaos_backend.engine.workers.port import Exit
from kaos_backend.engine.workers.process.namespaces import STANDS

# Without `site`: the launcher needs nothing that is installed, and has to be up at once.
_BOOT = "import sys; sys.path.append(sys.argv[1]); from {} import Launcher; Launcher().serve()"
COMMAND = (
    *(sys.executable, "-I", "-S", "-c", _BOOT.format("kaos_backend.engine.workers.process.launcher")),
    str(Path(__file__).parents[4]),
)
CANCEL_LATENCY_S = 0.05
CLOSE_S = 5.0


class Process(Protocol):
    """What is used of `subprocess.Popen`."""

    pid: int
    stdin: IO[bytes] | None
    stdout: IO[bytes] | None

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def kill(self) -> None: ...


def alone() -> Process:
    """A launcher's process, with an interpreter of its own."""
    return subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    )


class Launcher:
    """Starts a launcher's process, and another one after its death.

    Args:
        start: starts one; may raise OSError.
    """

    def __init__(self, start: Callable[[], Process] = alone) -> None:
        self._start_process = start
        self._lock = threading.Lock()
        self._closed = False
        self._process: Process | None = None
        self._replies = b""
        self.sandbox: tuple[str, ...] | None = None
        """How the sandbox was made that stands now, empty of what ran in it."""
        self._start()

    @property
    def pid(self) -> int | None:
        """The process that runs now, if any."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def run(self, request: Mapping[str, Any], cancel: threading.Event) -> Exit:
        """Run one datum to its end. Raises OSError or ValueError when it cannot be handed over."""
        started = time.monotonic()
        if self.pid is None:
            self._start()
        stands = request["sandbox"] is not None and request["sandbox"] == self.sandbox
        # Until it says that it stands.
        self.sandbox = None
        self._send({"run": {**request, "sandbox": STANDS} if stands else request})
        exit_, kept = self._await_exit(cancel, started)
        self.sandbox = request["sandbox"] if kept else None
        return exit_

    def close(self) -> None:
        """End the launcher, and with it a running datum. Idempotent."""
        with self._lock:
            self._closed = True
            process, self._process = self._process, None
        if process is not None:
            _end(process)

    def _start(self) -> None:
        with self._lock:
            if self._closed:
                raise OSError("the worker was closed")
            if self._process is not None:
                _end(self._process)
            self._replies, self.sandbox = b"", None
            self._process = self._start_process()

    def _send(self, message: Mapping[str, Any]) -> None:
        process = self._process
        if process is None or process.stdin is None:
            raise OSError("the launcher is gone")
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[process.stdin.write(data) or 0 :]

    def _await_exit(self, cancel: threading.Event, started: float) -> tuple[Exit, bool]:
        """How it ended, and whether its sandbox stands."""
        pid = 0
        canceled = False
        while True:
            reply = self._reply(CANCEL_LATENCY_S if not canceled else CLOSE_S)
            if reply is None:
                if pid:
                    _kill_session(pid)
                if cancel.is_set() or self._closed:
                    return Exit(None, None, "canceled", "", 0, time.monotonic() - started), False
                return failed("the worker's launcher was killed", started), False
            if "pid" in reply:
                pid = reply["pid"]
            elif "exit" in reply:
                return _exit(reply["exit"], started), reply["exit"]["kept"]
            elif canceled:
                # Nothing for seconds after the cancel: a launcher that does not answer is of no use.
                if self._process is not None:
                    self._process.kill()
            elif cancel.is_set():
                canceled = True
                self._send({"cancel": True})

    def _reply(self, timeout_s: float) -> dict[str, Any] | None:
        """The launcher's next message; {} when there is none in time, None when the launcher has ended."""
        process = self._process
        if process is None or process.stdout is None:
            return None
        while b"\n" not in self._replies:
            try:
                poll = select.poll()
                poll.register(process.stdout, select.POLLIN)
                if not poll.poll(timeout_s * 1000):
                    return {}
                data = process.stdout.read(65536)
            except ValueError:  # closed by close(), in another thread
                return None
            if not data:
                return None
            self._replies += data
        line, _, self._replies = self._replies.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply


def failed(message: str, started: float) -> Exit:
    """The worker's own failure, not that of what it ran; `started` is of `time.monotonic`."""
    return Exit(None, None, "error", message, 0, time.monotonic() - started)


def _exit(reply: Mapping[str, Any], started: float) -> Exit:
    return Exit(
        code=reply.get("code"),
        signal=reply.get("signal"),
        reason=reply["reason"],
        message=reply["message"],
        max_rss_bytes=reply.get("max_rss_bytes", 0),
        wall_s=reply.get("wall_s", time.monotonic() - started),
    )


def _end(process: Process) -> None:
    """Close the launcher's stdin, which makes it kill its datum and leave; insist after a while."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(CLOSE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _kill_session(session: int) -> None:
    """Kill what a dead launcher's datum left: all processes of the session that the command led."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                if int((entry / "stat").read_bytes().rpartition(b")")[2].split()[3]) == session:
                    os.kill(int(entry.name), signal.SIGKILL)
