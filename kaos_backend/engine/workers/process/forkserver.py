"""A process that has imported a program; launchers forked of it run that without starting an interpreter.

Executed as a module by `fork`, never imported by the engine: arguments are the program (`python -m …` of it)
and the modules to import for it. Each message on the socket that is its stdin carries the two ends of a
launcher's pipes; the answer is the launcher's pid, with a descriptor of it. What a run is given, secrets
included, goes to the launcher alone. The end of the socket means that the engine is gone.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import runpy  # noqa: F401 - what a launcher runs the program with
import signal
import socket
import sys
from collections.abc import Callable

from kaos_backend.engine.workers.process import spawn
from kaos_backend.engine.workers.process.ahead import Ahead
from kaos_backend.engine.workers.process.launcher import Launcher


def main(program: str, *modules: str) -> None:
    """Serve one engine until it closes the socket."""
    engine = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    rehearsals = [getattr(importlib.import_module(name), "rehearse", None) for name in modules]

    def rehearse() -> None:
        for one in filter(None, rehearsals):
            one()
        # What is left of it must not be found later, and close descriptors that are somebody else's by then.
        gc.collect()

    rehearse()
    spawn.IMPORTED = program
    # Forked processes share what is there now, as long as no collection writes to it.
    gc.freeze()
    # Nobody waits for launchers.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # An engine that was killed reads no answer.
    with contextlib.suppress(ConnectionError):
        while True:
            message, pipes, _, _ = socket.recv_fds(engine, 1, 2)
            if not message:
                return
            pid = os.fork()
            if pid == 0:
                engine.close()
                _launch(rehearse, *pipes)
            try:
                watch = [os.pidfd_open(pid)]
            except OSError:  # it has ended already
                watch = []
            socket.send_fds(engine, [str(pid).encode()], watch)
            for fd in (*watch, *pipes):
                os.close(fd)


def _launch(rehearse: Callable[[], None], requests: int, replies: int) -> None:
    """In the forked child: be a launcher. Never returns."""
    try:
        os.setsid()
        os.dup2(requests, 0)
        os.dup2(replies, 1)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if spawn.IMPORTED:
            spawn.AHEAD = Ahead(rehearse).start
        Launcher().serve()
    finally:
        os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
