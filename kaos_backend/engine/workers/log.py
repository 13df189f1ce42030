"""A trial's log file, as its worker writes it. Standard library only: the launcher does."""

from __future__ import annotations

import os
import time

LONGEST_LINE = 1 << 16


class Log:
    """The datum's log file: stamps lines, survives binary output, endless lines and a full disk."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._rest = b""

    def feed(self, data: bytes) -> None:
        lines, end, rest = data.rpartition(b"\n")
        if end:
            self._write(self._rest + lines)
            self._rest = rest
        else:
            self._rest += rest
        while len(self._rest) > LONGEST_LINE:
            cut = _before(self._rest, LONGEST_LINE)
            self._write(self._rest[:cut])
            self._rest = self._rest[cut:]

    def close(self) -> None:
        if self._rest:
            self._write(self._rest)
        os.close(self._fd)

    def _write(self, lines: bytes) -> None:
        """Lines with newlines between them; all at once, where they can be."""
        if b"\r" in lines:
            lines = b"\n".join(map(_shown, lines.split(b"\n")))
        if not _is_utf8(lines):
            lines = lines.decode("utf-8", "replace").encode()
        stamp = b"%d u " % (time.time_ns() // 1000)
        stamped = memoryview(b"%b%b\n" % (stamp, lines.replace(b"\n", b"\n" + stamp)))
        while stamped:
            try:
                stamped = stamped[os.write(self._fd, stamped) :]
            except OSError:  # disk full: the trial's fate must not hang on its log
                return


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _shown(line: bytes) -> bytes:
    """What a terminal would show in the end, as progress bars overwrite their line."""
    return line.removesuffix(b"\r").rpartition(b"\r")[2]


def _before(text: bytes, at: int) -> int:
    """The place at or before `at` where no character of UTF-8 is cut in two."""
    back = 0
    while back < 3 and text[at - back] & 0xC0 == 0x80:
        back += 1
    return at - back
