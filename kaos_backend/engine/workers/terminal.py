"""A pseudo-terminal for a command that somebody types at."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import threading
import tty

_CHUNK = 1 << 16
_PATIENCE_S = 5.0


class Terminal:
    """What runs has the device at `path`; `read`, `write` and `resize` are of whoever looks at it.

    Args:
        rows, columns: its size in characters.
    """

    def __init__(self, rows: int, columns: int) -> None:
        # The device stays open here too, so that nothing is lost before the command has it and after it ends.
        self._ours, self._device = os.openpty()
        os.set_blocking(self._ours, False)
        self.path = os.ttyname(self._device)
        self._lock = threading.Lock()
        self._closed = False
        self.resize(rows, columns)

    @property
    def device(self) -> int:
        """The command's side, for a runtime that has to carry its bytes elsewhere."""
        return self._device

    def resize(self, rows: int, columns: int) -> None:
        """Tell the command, as a window does."""
        self.size = (rows, columns)
        with self._lock:
            if not self._closed:
                packed = struct.pack("HHHH", min(rows, 0xFFFF), min(columns, 0xFFFF), 0, 0)
                fcntl.ioctl(self._ours, termios.TIOCSWINSZ, packed)

    def read(self, timeout_s: float) -> bytes:
        """What was printed; b"" when nothing is in time."""
        if not _ready(self._ours, select.POLLIN, timeout_s):
            return b""
        try:
            return os.read(self._ours, _CHUNK)
        except OSError:
            return b""

    def write(self, data: bytes, patience_s: float = 1.0) -> None:
        """Type. What a command does not take for so long is lost, as a full line of a real one is."""
        while data:
            with self._lock:
                if self._closed:
                    return
                try:
                    data = data[os.write(self._ours, data) :]
                    continue
                except BlockingIOError:
                    pass
                except OSError:
                    return
            if not _ready(self._ours, select.POLLOUT, patience_s):
                return

    # --- the command's side, for a runtime that carries the bytes elsewhere

    def pass_through(self) -> None:
        """Make nothing of what is typed: it is for a terminal elsewhere."""
        tty.setraw(self._device)
        os.set_blocking(self._device, False)

    def typed(self) -> bytes:
        """What was typed and is not taken yet."""
        try:
            return os.read(self._device, _CHUNK)
        except OSError:
            return b""

    def show(self, data: bytes) -> None:
        """Print; what nobody looks at for seconds is lost."""
        while data:
            try:
                data = data[os.write(self._device, data) :]
            except BlockingIOError:
                if not _ready(self._device, select.POLLOUT, _PATIENCE_S):
                    return
            except OSError:
                return

    def close(self) -> None:
        """Hang up. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._ours)
                os.close(self._device)


def _ready(fd: int, event: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(timeout_s * 1000))
