"""A sandbox that stays: bubblewrap makes it once, commands run in it one after the other.

To make one takes longer than most of what a short trial does. A shell of which nothing is asked keeps it.
Standard library only: this is the launcher's.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import time
from typing import Any

from kaos_backend.engine.workers.process import procs
from kaos_backend.engine.workers.process.starter import Starter

STANDS = "stands"
"""In place of how a sandbox is made: in the one that is there."""

_NS_GET_USERNS = 0xB701  # ioctl_ns(2)
_KEEPER = ("/bin/sh", "-c", "echo; read -r _")
_ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
_INFO_FD = 3
_START_S = 30.0
_SETTLE_S = 0.02


class Kept:
    """A sandbox in which nothing runs but what keeps it, and one command at a time.

    Args:
        argv: bubblewrap's, up to and without the command.
        groups: files by which control groups are entered; for what runs inside.

    Raises:
        OSError: it cannot be made, with what bubblewrap says; EPERM or EACCES when it may not be entered.
    """

    def __init__(self, argv: list[str], groups: list[str]) -> None:
        self.argv = argv
        self.over = False
        """It has ended, or is about to."""
        self._left = False
        self._open: list[int] = []
        self._starter: Starter | None = None
        keep_r, keep = os.pipe()
        said, said_w = os.pipe()
        info, info_w = os.pipe()
        self._open += [keep, said, info]
        try:
            self._pids = {_bubblewrap(argv, keep_r, said_w, info_w)}
        except BaseException:
            self._let_go()
            raise
        finally:
            for fd in (keep_r, said_w, info_w):
                os.close(fd)
        try:
            self._init = _up(said, info)
            self._init_fd = os.pidfd_open(self._init)
            self._open.append(self._init_fd)
            (self._keeper,) = procs.children(self._init)
            self._starter = Starter(self._namespaces(), groups)
            self._pids.add(self._starter.pid)
        except BaseException:
            self._let_go()
            raise

    @property
    def answers(self) -> int:
        """A descriptor that can be read when the command has ended."""
        return self._started.answers

    def start(self, request: dict[str, Any], stdin: int, output: int) -> None:
        """Start a command; of the descriptors it has its own. Raises OSError."""
        self._started.start(request, stdin, output)

    def answer(self) -> tuple[int, int] | None:
        """How the command ended, as wait4(2) tells: (status, greatest resident size in bytes).

        None when the sandbox has ended, and the command with it.
        """
        answer = self._started.answer()
        if answer is None:
            self.end()
            return None
        self._left = bool(answer["left"])
        return answer["status"], answer["peak"] * 1024

    def processes(self) -> list[int]:
        """All that runs inside, but for what keeps it. May miss what is being born."""
        own = (self._keeper, self._init)
        tops = [self._started.pid, self._init]
        return [pid for top in tops for pid in procs.descendants(top) if pid not in own]

    def is_clean(self) -> bool:
        """Whether nothing of a command that has ended is left inside: no process, no shared memory."""
        if self._left or self.over:
            return False
        until = time.monotonic() + _SETTLE_S
        try:
            while left := [pid for pid in procs.children(self._init) if pid != self._keeper]:
                # What has just ended is waited for by the sandbox's init in a moment.
                if not all(map(procs.is_zombie, left)) or time.monotonic() > until:
                    return False
                time.sleep(0.001)
            return not os.listdir(f"/proc/{self._keeper}/root/dev/shm")  # noqa: PTH208
        except (OSError, ValueError):
            return False

    def reaped(self, pid: int) -> None:
        """A child of this process has ended."""
        if pid in self._pids:
            self._pids.remove(pid)
            self.end()

    @property
    def is_gone(self) -> bool:
        """Nothing of it is there any more."""
        return self.over and not self._pids - {self._started.pid}

    def end(self) -> None:
        """Kill it, and by the kernel's hand all that is inside. Idempotent."""
        self.over = True
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._init_fd, signal.SIGKILL)

    def close(self) -> None:
        """End it, wait until it is gone, and let go of what is held of it."""
        self.end()
        self._let_go()

    @property
    def _started(self) -> Starter:
        assert self._starter is not None
        return self._starter

    def _let_go(self) -> None:
        if self._starter is not None:
            self._starter.close()
        while self._pids:
            pid = self._pids.pop()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        while self._open:
            os.close(self._open.pop())

    def _namespaces(self) -> list[int]:
        """In the order in which they can be entered: one gives the right to the next."""
        mount, pid, ipc, cgroup, inner = map(self._namespace, ("mnt", "pid", "ipc", "cgroup", "user"))
        owner = fcntl.ioctl(mount, _NS_GET_USERNS)
        os.set_inheritable(owner, False)
        self._open.append(owner)
        found = [pid, ipc, cgroup, mount]
        # Where the caller is not root: the one in which bubblewrap mounts, and the one in which nobody can.
        if not os.path.samestat(os.fstat(owner), os.stat("/proc/self/ns/user")):  # noqa: PTH116
            found.insert(0, owner)
        if not os.path.samestat(os.fstat(inner), os.fstat(owner)):
            found.append(inner)
        return found

    def _namespace(self, name: str) -> int:
        fd = os.open(f"/proc/{self._keeper}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        self._open.append(fd)
        return fd


def _bubblewrap(argv: list[str], stdin: int, output: int, info: int) -> int:
    """Its process id."""
    ends = ((stdin, 0), (output, 1), (output, 2), (info, _INFO_FD))
    # None of these may be one of the numbers that they are to be given.
    high = [(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10), number) for fd, number in ends]
    try:
        return os.posix_spawnp(
            argv[0],
            [*argv, "--info-fd", str(_INFO_FD), "--", *_KEEPER],
            _ENV,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for fd, number in high],
            setsid=True,
            setsigdef=(signal.SIGINT, signal.SIGPIPE, signal.SIGTERM),
        )
    finally:
        for fd, _ in high:
            os.close(fd)


def _up(said: int, info: int) -> int:
    """The process id of a sandbox's init, once its keeper runs."""
    text = b""
    poll = select.poll()
    poll.register(said, select.POLLIN)
    until = time.monotonic() + _START_S
    while not text.endswith(b"\n"):
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            raise OSError("the sandbox does not come up")
        data = os.read(said, 4096)
        if not data:
            break
        text += data
    if text != b"\n":
        raise OSError(text.decode("utf-8", "replace").strip() or "the sandbox ended at once")
    pid: int = json.loads(os.read(info, 65536))["child-pid"]
    return pid
