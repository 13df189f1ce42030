"""One running command of a launcher, held to its limits. Standard library only: the launcher's."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

from kaos_backend.engine.workers.log import Log
from kaos_backend.engine.workers.process import procs, spawn
from kaos_backend.engine.workers.process.namespaces import Kept

CHUNK = 1 << 16
# How fast a process can dirty fresh pages on common hardware; sets how long a sample of its memory is good
# for.
BYTES_PER_S = 3 << 30
SAMPLE_S = (0.004, 0.25)
_MACHINE = "/proc/vmstat"


class Datum:
    """One running command and all that it starts.

    Args:
        sandbox: it runs in this one, and ends with it.
        wrapped: the command is bubblewrap's, which tells of a signal as a shell does.
    """

    def __init__(self, request: dict[str, Any], sandbox: Kept | None, wrapped: bool) -> None:
        self.sandbox, self._wrapped = sandbox, wrapped
        self.limit: int | None = request["memory"]
        # Without a group, or without a limit, there is nothing of ours to count.
        self.ooms: str | None = request["ooms"] if self.limit is not None else None
        self.started = time.monotonic()
        self.deadline = self.started + request["timeout"] if request["timeout"] is not None else None
        self.reason = ""
        self.message = ""
        self.peak = 0
        self.status: int | None = None
        # Where the kernel holds the limit, or there is none, what ends before the first sample needs none.
        self.next_sample = self.started + SAMPLE_S[self.limit is None or self.ooms is not None]
        self._kernel_kills = procs.oom_kills(_MACHINE)
        self._group_kills = procs.oom_kills(self.ooms) if self.ooms else 0
        self._feed = request["stdin"].encode("latin-1")
        self.out: int | None = None
        self.input: int | None = None
        self.log = Log(request["log"])
        self.pid = 0
        try:
            self._start(request)
        except BaseException:
            self._close()
            raise

    def feed(self) -> None:
        """Push stdin; a command that does not read it to the end is fine."""
        if self.input is None:
            return
        try:
            while self._feed:
                self._feed = self._feed[os.write(self.input, self._feed[:CHUNK]) :]
        except BlockingIOError:
            return
        except OSError:
            pass
        os.close(self.input)
        self.input = None

    def drain(self) -> bool:
        """Take one chunk of output; False when there is none now."""
        if self.out is None:
            return False
        try:
            data = os.read(self.out, CHUNK)
        except BlockingIOError:
            return False
        if data:
            self.log.feed(data)
            return True
        os.close(self.out)
        self.out = None
        return False

    def tick(self, now: float) -> None:
        """Enforce the memory limit and the deadline."""
        if self.deadline is not None and now >= self.deadline:
            self.kill("timeout")
        elif now >= self.next_sample:
            self._sample()
            cost = time.monotonic() - now
            headroom = self.limit - self.peak if self.limit is not None else BYTES_PER_S
            wait = min(max(headroom / BYTES_PER_S, SAMPLE_S[0], 20 * cost), SAMPLE_S[1])
            self.next_sample = now + wait

    def kill(self, reason: str, message: str = "") -> None:
        """End it and all that it started; `reaped` is still to tell of it."""
        if not self.reason:
            self.reason, self.message = reason, message
        if self.sandbox is not None:
            self.sandbox.end()
            return
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        self._kill_others()

    def reaped(self, pid: int, status: int, peak: int) -> None:
        """A child of this process has ended, which had so many bytes in memory at most."""
        # A sandbox made for one command leaves without waiting for its init, which has what that used.
        self.peak = max(self.peak, peak)
        if pid == self.pid:
            self.status = status

    def answered(self) -> None:
        """Its sandbox has something to tell."""
        assert self.sandbox is not None
        answer = self.sandbox.answer()
        if answer is None:
            # What started it is out of its sight, but shares its limit: else it is none of its own doing.
            if self._out_of_memory():
                self.kill("oom")
            else:
                self.kill("error", "its sandbox was killed")
            self.status = signal.SIGKILL
        else:
            self.status, peak = answer
            self.peak = max(self.peak, peak)

    def leaves_something(self) -> bool:
        """After the command ended: whether anything of it is still there, which is killed."""
        while self.drain():
            pass
        if self.sandbox is not None:
            if not self.sandbox.is_clean():
                self.sandbox.end()
                return not self.sandbox.is_gone
            return False
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        self._kill_others()
        return True

    def outcome(self) -> dict[str, Any]:
        """How it went, when nothing of it is left; takes the last output."""
        while self.drain():
            pass
        self._close()
        status = self.status if self.status is not None else 0
        code = os.waitstatus_to_exitcode(status)
        number: int | None = -code if code < 0 else None
        if self._wrapped and 128 < code < 128 + signal.NSIG:
            number = code - 128
        if self.reason in ("", "oom") and self._out_of_memory():
            self.reason, self.peak = "oom", max(self.peak, self.limit or 0)
            self.message = f"used {_mib(self.peak)} MiB of {_mib(self.limit or 0)} MiB"
        if not self.reason:
            self.reason = "signal" if number else "exited"
            if number == signal.SIGKILL and procs.oom_kills(_MACHINE) > self._kernel_kills:
                self.reason = "oom"
                limit = "no limit of its own" if self.limit is None else f"{_mib(self.limit)} MiB"
                self.message = f"used {_mib(self.peak)} MiB of {limit}; the machine ran out of memory"
        return {
            "code": 128 + number if number else code,
            "signal": number,
            "reason": self.reason,
            "message": self.message,
            "max_rss_bytes": self.peak,
            "wall_s": time.monotonic() - self.started,
        }

    def _start(self, request: dict[str, Any]) -> None:
        if request["tty"] is not None:
            stdin = output = os.open(request["tty"], os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        else:
            stdin, self.input = os.pipe()
            self.out, output = os.pipe()
            for fd in (self.out, self.input):
                os.set_blocking(fd, False)
            # Most of it is there before anybody asks.
            self.feed()
        try:
            if self.sandbox is None:
                self.pid = spawn.start(request, stdin, output)
            else:
                self.sandbox.start(request, stdin, output)
        finally:
            for fd in {stdin, output}:
                os.close(fd)

    def _sample(self) -> None:
        pids = self._processes()
        used = procs.resident(pids)
        if self.ooms:
            # The kernel ends one process; the rest may wait for it for ever.
            if self._out_of_memory():
                self.kill("oom")
        elif self.limit is not None and used > self.limit:
            # RSS counts a page once per process that maps it; before killing, count shared pages once.
            used = procs.proportional(pids)
            if used > self.limit:
                self.kill("oom", f"used {_mib(used)} MiB of {_mib(self.limit)} MiB")
        self.peak = max(self.peak, used)

    def _out_of_memory(self) -> bool:
        """Whether the kernel has ended something of it for that."""
        return self.ooms is not None and procs.oom_kills(self.ooms) > self._group_kills

    def _processes(self) -> list[int]:
        return procs.descendants(os.getpid()) if self.sandbox is None else self.sandbox.processes()

    def _kill_others(self) -> None:
        for pid in procs.descendants(os.getpid()):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def _close(self) -> None:
        for fd in (self.out, self.input):
            if fd is not None:
                os.close(fd)
        self.out = self.input = None
        self.log.close()


def _mib(size: int) -> int:
    return -(-size // (1 << 20))
