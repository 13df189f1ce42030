"""Runs datums for one worker slot: a program of its own, started by `launch` or forked by `forkserver`.

Standard library only and few imports: it must be up in milliseconds and small to fork. One JSON object per
line on stdin ({"run": …} or {"cancel": true}) and on stdout ({"pid": n} when the command runs, then {"exit":
…}).

Nothing outlives its datum. Without a sandbox this is the subreaper of everything the command starts: however
a process detaches itself, it ends up as a child of this one and is killed. A sandbox stays for the next datum
that wants the same, but is ended with all that is in it when a command leaves anything there. End of stdin
means the engine is gone: the command dies too.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import time
from typing import Any

from kaos_backend.engine.workers.process.datum import CHUNK, Datum
from kaos_backend.engine.workers.process.namespaces import STANDS, Kept
from kaos_backend.engine.workers.process.spawn import libc

_PR_SET_CHILD_SUBREAPER = 36
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 1 << 20
_DRAIN_S = 2.0
_AGAIN_S = 0.01


class Launcher:
    """Serves one engine until that closes stdin."""

    def __init__(self) -> None:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        # Of a log as fast as a disk, each piece would else be in memory that the kernel gives and takes back.
        with contextlib.suppress(AttributeError):  # glibc's own
            libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
            libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        self._replies = os.dup(1)
        os.dup2(2, 1)
        self._wake, wake_w = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_w, False)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._stopping = False
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._requests = b""
        self._datum: Datum | None = None
        self._sandbox: Kept | None = None
        self._enters = True
        self._groups: list[str] = []

    def serve(self) -> None:
        """Returns when the engine is gone, and nothing runs any more."""
        while True:
            ready = self._wait()
            if 0 in ready:
                self._read()
            if self._stopping:
                break
            for message in self._messages():
                if "cancel" in message and self._datum is not None:
                    self._datum.kill("canceled")
                elif "run" in message:
                    self._run(message["run"])
            self._reap()
            if self._datum is not None:
                self._follow(self._datum, ready)
        if self._datum is not None:
            self._datum.kill("canceled")
            self._finish(self._datum)
        self._drop()
        _remove(self._groups)

    def _wait(self) -> set[int]:
        """The descriptors for which there is something to do."""
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        timeout = None
        if (datum := self._datum) is not None:
            if datum.sandbox is not None:
                poll.register(datum.sandbox.answers, select.POLLIN)
            if datum.out is not None:
                poll.register(datum.out, select.POLLIN)
            if datum.input is not None:
                poll.register(datum.input, select.POLLOUT)
            due = datum.next_sample if datum.deadline is None else min(datum.next_sample, datum.deadline)
            timeout = max(0.0, due - time.monotonic()) * 1000
        ready = {fd for fd, _ in poll.poll(timeout)}
        if self._wake in ready:
            self._clear_wake()
        return ready

    def _read(self) -> None:
        data = os.read(0, CHUNK)
        self._stopping |= not data
        self._requests += data

    def _messages(self) -> list[dict[str, Any]]:
        *lines, self._requests = self._requests.split(b"\n")
        return [json.loads(line) for line in lines]

    def _run(self, request: dict[str, Any]) -> None:
        self._groups = request["groups"]
        try:
            self._datum = self._start(request)
            self._say({"pid": self._datum.pid})
        except OSError as error:
            self._drop()
            self._say_exit({"reason": "error", "message": f"cannot start the command: {error}"})

    def _start(self, request: dict[str, Any]) -> Datum:
        argv = request["sandbox"]
        if argv == STANDS:
            if self._sandbox is None or self._sandbox.over:
                raise OSError("its sandbox has been ended")
            argv = self._sandbox.argv
        else:
            self._drop()
        if argv is None:
            return Datum(request, None, wrapped=False)
        if self._enters:
            try:
                if self._sandbox is None:
                    self._sandbox = Kept(argv, self._groups)
                return Datum(request, self._sandbox, wrapped=False)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EACCES):
                    raise
            # A bubblewrap that is root's (setuid) makes what its caller may not enter.
            self._enters = False
            self._drop()
        return Datum(_wrapped(request), None, wrapped=True)

    def _follow(self, datum: Datum, ready: set[int]) -> None:
        if datum.input in ready:
            datum.feed()
        if datum.out in ready:
            datum.drain()
        if datum.sandbox is not None and datum.sandbox.answers in ready:
            datum.answered()
        if datum.status is None:
            datum.tick(time.monotonic())
        else:
            self._finish(datum)

    def _finish(self, datum: Datum) -> None:
        """After the command ended: nothing that it left stays; tell how it went."""
        until = time.monotonic() + _DRAIN_S
        while (datum.status is None or datum.leaves_something()) and time.monotonic() < until:
            awaited = [] if datum.sandbox is None or datum.status is not None else [datum.sandbox.answers]
            ready, _, _ = select.select([self._wake, *awaited], [], [], _AGAIN_S)
            self._clear_wake()
            if ready and ready[-1] in awaited:
                datum.answered()
            self._reap()
        self._datum = None
        if self._sandbox is not None and self._sandbox.over:
            self._drop()
        self._say_exit(datum.outcome())

    def _reap(self) -> None:
        """Collect ended children."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    break
                if self._sandbox is not None:
                    self._sandbox.reaped(pid)
                if self._datum is not None:
                    self._datum.reaped(pid, status, usage.ru_maxrss * 1024)

    def _drop(self) -> None:
        if self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None

    def _say_exit(self, outcome: dict[str, Any]) -> None:
        self._say({"exit": outcome | {"kept": self._sandbox is not None}})

    def _say(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        # An engine that is gone has closed stdin as well: that ends the datum, and only then this process.
        # Ending first would leave what has not yet asked to die with it: a sandbox that is being set up.
        with contextlib.suppress(BrokenPipeError):
            while data:
                data = data[os.write(self._replies, data) :]

    def _clear_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake, 4096):
                pass

    def _stop(self, *_: object) -> None:
        self._stopping = True


def _wrapped(request: dict[str, Any]) -> dict[str, Any]:
    """The request with bubblewrap itself as the command, which makes a sandbox for this one.

    `env` gives the variables inside: bubblewrap would load what some of them name. `sh` has a missing program
    end with 127 and one that cannot be run with 126, as everywhere.
    """
    variables = [f"{name}={value}" for name, value in request["env"].items()]
    inside = ["/usr/bin/env", "-i", *variables, "/bin/sh", "-c", 'exec "$@"', "sh", *request["argv"]]
    argv = [*request["sandbox"], "--chdir", request["cwd"], "--", *inside]
    return request | {"argv": argv, "cwd": "/", "env": {"PATH": os.environ.get("PATH", os.defpath)}}


def _remove(groups: list[str]) -> None:
    """Remove the control groups that datums ran in: an engine that was killed cannot."""
    until = time.monotonic() + _DRAIN_S
    for members in groups:
        while time.monotonic() < until:
            try:
                os.rmdir(os.path.dirname(members))  # noqa: PTH106, PTH120
            except OSError as error:
                if error.errno == errno.EBUSY:  # what was killed leaves in a moment
                    time.sleep(_AGAIN_S)
                    continue
            break
