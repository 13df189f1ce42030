"""A child of a launcher that is forked before there is anything to run, and gets ready meanwhile."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from typing import Any

from kaos_backend.engine.workers.process import spawn

_CHUNK = 1 << 16


class Ahead:
    """Waits to be a command of this process.

    Args:
        rehearse: called in the child: what it uses for the first time there is slower than what it has used.
    """

    def __init__(self, rehearse: Callable[[], None]) -> None:
        self._socket, theirs = socket.socketpair()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            self._socket.close()
            spawn.in_child(lambda: _wait(theirs, parent, rehearse))
        theirs.close()

    def start(self, request: dict[str, Any], stdin: int, output: int) -> int:
        """As `spawn.start`; once. Raises OSError when the child is gone."""
        with self._socket as child:
            # A first byte, as descriptors need something to come with.
            socket.send_fds(child, [b"r"], [stdin, output])
            child.sendall(json.dumps(request).encode())
        return self._pid


def _wait(launcher: socket.socket, parent: int, rehearse: Callable[[], None]) -> None:
    spawn.die_with(parent)
    nothing = os.open(os.devnull, os.O_RDWR)
    # These are the launcher's.
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    rehearse()
    first, streams, _, _ = socket.recv_fds(launcher, 1, 2)
    request = bytearray()
    while first and (data := launcher.recv(_CHUNK)):
        request += data
    if request:
        stdin, output = streams
        spawn.alone(json.loads(request), stdin, output, parent)
