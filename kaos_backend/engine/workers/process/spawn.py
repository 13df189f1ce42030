"""How a forked process of the launcher turns into a trial's command. Standard library only."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import sys
import termios
import warnings  # noqa: F401 - what `os.execvpe` imports, where our files are out of sight
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_OOM_SCORE_ADJ = b"500"  # should the machine itself run out of memory, trials go before anything else
_NOT_FOUND, _NOT_RUN = 127, 126
_DEFAULTS = (signal.SIGPIPE, signal.SIGCHLD, signal.SIGTERM)
UMASK = 0o022
"""What every command begins with."""

# The module that a fork server has imported, whose launchers run it without another interpreter.
IMPORTED = ""
# As `start`, by a child that waits to run that module; for one run.
AHEAD: Callable[[dict[str, Any], int, int], int] | None = None

libc = ctypes.CDLL(None, use_errno=True)


def start(request: dict[str, Any], stdin: int, output: int) -> int:
    """The process id of the request's command, which sees all that this process does. Raises OSError."""
    global AHEAD
    if AHEAD is not None and _is_imported(request["argv"]):
        ahead, AHEAD = AHEAD, None
        # Somebody may have ended it.
        with contextlib.suppress(OSError):
            return ahead(request, stdin, output)
    parent = os.getpid()
    return forked(lambda: alone(request, stdin, output, parent))


def at_once(request: dict[str, Any], stdin: int, output: int) -> int | None:
    """The process id of the request's command, the leader of a new session, started without a copy of this
    process: from now on that stands in the command's folder. None where it takes a copy: for a terminal, or
    to tell what is wrong.
    """
    if request["tty"] or _is_imported(request["argv"]):
        return None
    streams = ((stdin, 0), (output, 1), (output, 2))
    with contextlib.suppress(OSError, ValueError):
        os.chdir(request["cwd"])
        return os.posix_spawn(
            _program(request["argv"][0], request["env"]),
            request["argv"],
            request["env"],
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for fd, number in streams],
            setsid=True,
            setsigdef=_DEFAULTS,
        )
    return None


def forked(do: Callable[[], object]) -> int:
    """The process id of a child that does this and ends."""
    pid = os.fork()
    if pid == 0:
        in_child(do)
    return pid


def in_child(do: Callable[[], object]) -> NoReturn:
    """Nothing of a forked process' life goes on in its parent's code."""
    try:
        do()
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(2, f"kaos: the command cannot be started: {error}\n".encode("utf-8", "replace"))
    finally:
        os._exit(_NOT_RUN)


def die_with(parent: int) -> None:
    """End when the process that forked this one ends."""
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above took effect
        os._exit(1)


def go_first() -> None:
    """When the machine is out of memory."""
    with contextlib.suppress(OSError):
        write("/proc/self/oom_score_adj", _OOM_SCORE_ADJ)


def pin(cores: Sequence[int]) -> None:
    """Run on these cores alone, if any is named."""
    # A core that this container may not use: the engine's count still holds.
    with contextlib.suppress(OSError):
        if cores:
            os.sched_setaffinity(0, cores)


def take(stdin: int, output: int) -> None:
    """Make these the standard input, output and errors."""
    os.dup2(stdin, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)


def become(request: dict[str, Any]) -> None:
    """Turn the leader of a new session into the request's command. Never returns."""
    argv = request["argv"]
    if request["tty"]:
        # Whose keys send it signals.
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for number in _DEFAULTS:
        signal.signal(number, signal.SIG_DFL)
    os.umask(UMASK)
    try:
        os.chdir(request["cwd"])
        if _is_imported(argv):
            _run_imported(request["env"])
        os.execvpe(argv[0], argv, request["env"])  # noqa: S606
    except ValueError as error:
        os.write(2, f"kaos: cannot run {argv[0]!r}: {error}\n".encode("utf-8", "replace"))
    except OSError as error:
        # What a shell would say and return, so that logs read the same in every runtime.
        why = os.strerror(error.errno or 0)
        if error.errno == errno.ENOENT and os.path.exists(argv[0]):  # noqa: PTH110
            why = "the program that its first line names is missing"
        with contextlib.suppress(OSError):
            os.write(2, f"kaos: cannot run {argv[0]} in {request['cwd']}: {why}\n".encode("utf-8", "replace"))
        os._exit(_NOT_FOUND if error.errno == errno.ENOENT else _NOT_RUN)


def alone(request: dict[str, Any], stdin: int, output: int, parent: int) -> None:
    """In a child of `parent`: turn into the request's command. Never returns."""
    take(stdin, output)
    pin(request["cores"])
    go_first()
    for members in request["groups"]:
        write(members, b"0")
    os.setsid()
    die_with(parent)
    become(request)


def _program(name: str, env: dict[str, str]) -> str:
    """The file that a shell would run; `name` itself where there is none."""
    if "/" in name:
        return name
    places = (f"{folder}/{name}" for folder in os.get_exec_path(env))
    return next((place for place in places if os.access(place, os.X_OK)), name)


def _is_imported(argv: Sequence[str]) -> bool:
    return bool(IMPORTED) and list(argv) == [sys.executable, "-m", IMPORTED]


def _run_imported(env: dict[str, str]) -> None:
    """Be `python -m IMPORTED`, which a fork server has imported. Never returns."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # as an exec does
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(env)
    code: Any = 0
    try:
        import runpy

        runpy.run_module(IMPORTED, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:
        code = 1
        sys.excepthook(*sys.exc_info())
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def write(path: str, text: bytes) -> None:
    """Into a file that is there. Raises OSError."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)
