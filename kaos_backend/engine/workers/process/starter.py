"""Starts commands in namespaces that exist: a process that stands in them, and what speaks with it.

It is forked once: to fork the launcher and enter anew for every command costs more than the rest of a short
trial's start. What is started is in a namespace of processes in which this one is not, and can do nothing
to it. Standard library only: this is the launcher's.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource  # noqa: F401 - what `os.wait4` imports, where our files are out of sight
import socket
import struct
from collections.abc import Sequence
from typing import Any, NoReturn

from kaos_backend.engine.workers.process import procs, spawn
from kaos_backend.engine.workers.process.spawn import libc

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_CAPABILITY_VERSION_3 = 0x20080522
_CAPABILITIES = 64
_SIZE = struct.Struct("=I")
_SYSTEM_V = ("shm", "sem", "msg")


class Starter:
    """A forked process in `namespaces`: descriptors, in the order in which they can be entered.

    Args:
        groups: files by which control groups are entered; for this process too, as what it starts is then
            born there: a process that enters a group has to wait for the kernel, often for 10 ms.

    Raises:
        OSError: the namespaces cannot be entered.
    """

    def __init__(self, namespaces: Sequence[int], groups: Sequence[str]) -> None:
        self._ours, theirs = socket.socketpair()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            self._ours.close()
            _stand(theirs, namespaces, groups, parent)
        theirs.close()
        if failure := self._receive():
            self.close()
            os.waitpid(self.pid, 0)
            raise OSError(failure["errno"], os.strerror(failure["errno"]))

    @property
    def answers(self) -> int:
        """A descriptor that can be read when a command has ended."""
        return self._ours.fileno()

    def start(self, request: dict[str, Any], stdin: int, output: int) -> None:
        """Start a command; of the descriptors it has its own. Raises OSError."""
        what = {name: request[name] for name in ("argv", "env", "cwd", "cores")}
        data = json.dumps(what | {"tty": request["tty"] is not None}).encode()
        socket.send_fds(self._ours, [_SIZE.pack(len(data))], [stdin, output])
        self._ours.sendall(data)

    def answer(self) -> dict[str, int] | None:
        """How the command ended: `status` and `peak` (KiB) as of wait4(2), and whether it `left` something to
        those that come after it. None when this process has ended itself.
        """
        with contextlib.suppress(OSError):
            return self._receive()
        return None

    def close(self) -> None:
        """Let it end, which is to be waited for. Idempotent."""
        self._ours.close()

    def _receive(self) -> dict[str, int]:
        """Raises OSError when nothing comes any more."""
        (size,) = _SIZE.unpack(_exactly(self._ours, _SIZE.size))
        answer: dict[str, int] = json.loads(_exactly(self._ours, size))
        return answer


def _stand(
    requests: socket.socket, namespaces: Sequence[int], groups: Sequence[str], parent: int
) -> NoReturn:
    """The forked process' life."""
    try:
        spawn.go_first()
        # Their files are out of sight in there.
        for members in groups:
            spawn.write(members, b"0")
        for fd in namespaces:
            _checked(libc.setns(fd, 0))
        _renounce()
        # Not before: the kernel forgets it when rights change.
        spawn.die_with(parent)
    except OSError as error:
        _send(requests, {"errno": error.errno or errno.EIO})
        os._exit(1)
    try:
        _send(requests, {})
        os.umask(spawn.UMASK)
        while True:
            _serve(requests)
    except Exception as error:
        # The engine's own log has it; a traceback would want files.
        os.write(2, f"kaos: a sandbox is lost: {error!r}\n".encode("utf-8", "replace"))
    finally:
        os._exit(0)


def _serve(requests: socket.socket) -> None:
    size, fds, _, _ = socket.recv_fds(requests, _SIZE.size, 2)
    if not size:
        os._exit(0)
    request = json.loads(_exactly(requests, _SIZE.unpack(size)[0]))
    spawn.pin(request["cores"])
    # A fork would copy this process for nothing. But it tells why something cannot be run.
    pid = spawn.at_once(request, *fds) or spawn.forked(lambda: _become(request, fds))
    for fd in fds:
        os.close(fd)
    _, status, usage = os.wait4(pid, 0)
    _send(requests, {"status": status, "peak": usage.ru_maxrss, "left": _system_v()})


def _become(request: dict[str, Any], fds: Sequence[int]) -> None:
    spawn.take(*fds)
    os.setsid()
    spawn.become(request)


def _system_v() -> bool:
    """Whether there is shared memory, a semaphore or a queue: they outlive who made them (sysvipc(7))."""
    for kind in _SYSTEM_V:
        with contextlib.suppress(OSError):
            if procs.read(f"/proc/sysvipc/{kind}").count(b"\n") > 1:
                return True
    return False


def _send(to: socket.socket, message: dict[str, int]) -> None:
    data = json.dumps(message).encode()
    to.sendall(_SIZE.pack(len(data)) + data)


def _exactly(source: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = source.recv(size - len(data))
        if not more:
            raise ConnectionResetError(errno.ECONNRESET, "the other side has ended")
        data += more
    return bytes(data)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def _renounce() -> None:
    """All capabilities, for ever: what bubblewrap's `--cap-drop ALL` comes to (capabilities(7))."""
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    for number in range(_CAPABILITIES):
        # A number that the kernel does not know is refused.
        libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _checked(libc.capset(ctypes.byref(_Header(_CAPABILITY_VERSION_3, 0)), nothing))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
