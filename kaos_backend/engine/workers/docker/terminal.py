"""A terminal of this machine for a command in a container: its bytes go to and fro over the engine's
connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kaos_backend.engine.workers.docker.stream import Stream
from kaos_backend.engine.workers.terminal import Terminal


class TerminalStream(Stream):
    """A connection of a command that has a terminal: no frames, bytes as they are.

    Args:
        resize: tells the container the terminal's size, in rows and columns.
    """

    def __init__(self, raw: Any, terminal: Terminal, resize: Callable[[int, int], None]) -> None:
        super().__init__(raw)
        self._terminal = terminal
        self._resize = resize
        self._size: tuple[int, int] | None = None
        # The container's own terminal makes of the keys what they mean.
        terminal.pass_through()

    def send(self, data: bytes, *, last: bool = False) -> None:
        """Not used up by a command's fixed input: who types says when it is over."""
        super().send(b"" if last else data)

    def receive(self, timeout_s: float) -> bytes:
        """Nothing: what has come is on the terminal. What was typed meanwhile is sent."""
        if self._terminal.size != self._size:
            self._size = self._terminal.size
            self._resize(*self._size)
        self.wait(timeout_s, also=self._terminal.device)
        if typed := self._terminal.typed():
            super().send(typed)
        data, self._data = bytes(self._data), bytearray()
        self._terminal.show(data)
        return b""
