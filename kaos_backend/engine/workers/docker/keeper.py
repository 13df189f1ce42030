"""The engine's end of `keeper.sh`, which keeps a container and runs commands in it.

A command that the keeper starts is there in milliseconds; one by `exec` of the engine's API takes its own
runtime's start, several times as long.
"""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from kaos_backend.engine.errors import Unknown
from kaos_backend.engine.workers.docker.stream import Stream

SCRIPT = resources.files(__package__).joinpath("keeper.sh").read_text("utf-8")

_ANSWER_S = 30.0
_TICK_S = 0.05
# A shell reads its requests byte by byte.
_INPUT_BYTES = 64 << 10
_STDERR = 2
_SIGNALS = ("INT", "QUIT")  # which a shell has what it starts in the background ignore


@dataclass(frozen=True, slots=True)
class Counts:
    """What the kernel counted: processes ended for want of memory, and the peak."""

    killed: int
    peak_bytes: int


class Keeper:
    """Takes over a stream that is attached to the container, before that is started."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._answers = b""
        self._output = bytearray()
        self._input = b""
        self._starts = False
        self.exit_code: int | None = None
        """That of the command that was started last, once it has ended by itself."""
        self.over = True
        """Nothing that was started here runs."""

    def ready(self) -> Counts:
        """Wait for it to be there. Raises Unknown when it is not."""
        killed, peak, starts = self._answer("ready")
        self._starts = starts == "yes"
        return Counts(int(killed), int(peak))

    def can_start(self, cmd: Sequence[str], stdin: bytes, env: Mapping[str, str]) -> bool:
        """Whether `start` can: the image has what that takes, and a shell can be told all of it."""
        return (
            self._starts
            and "=" not in cmd[0]
            and len(stdin) <= _INPUT_BYTES
            and (not stdin or stdin.endswith(b"\n"))
            and stdin.isascii()
            and b"\0" not in stdin
            and all(name.isidentifier() for name in env)
            and all(text.isascii() for text in (*cmd, *env, *env.values()))
        )

    def start(self, cmd: Sequence[str], stdin: bytes, env: Mapping[str, str], workdir: str) -> None:
        """Start a command as root; see `can_start`."""
        self.exit_code, self.over = None, False
        if stdin != self._input:
            self._send("input", stdin.decode())
            self._input = stdin
        exports = " ".join(shlex.quote(f"{name}={value}") for name, value in env.items())
        signals = ",".join(_SIGNALS)
        self._send(
            "run",
            f"cd {shlex.quote(workdir)} || exit\n"
            f"export {exports}\n"
            f"exec setsid env --default-signal={signals} {shlex.join(cmd)}\n",
        )

    def receive(self, timeout_s: float) -> bytes:
        """What the command has printed; b"" when nothing has come in time."""
        if not self._output:
            self._take(timeout_s)
        said = bytes(self._output)
        self._output.clear()
        return said

    @property
    def gone(self) -> bool:
        """The container has ended."""
        return self._stream.ended

    def look(self) -> Counts:
        """Raises Unknown when there is no answer."""
        self._stream.send(b"look\n")
        return self._counts()

    def end(self, owner: str) -> tuple[Counts, bytes]:
        """End all that runs in the container, have outputs belong to `owner`; and what it had printed.

        Raises Unknown when there is no answer.
        """
        # By nobody who runs there to be foreseen: what comes before it is theirs, nothing comes after it.
        mark = secrets.token_hex(16)
        self._stream.send(f"end {mark} {owner}".rstrip().encode() + b"\n")
        counts = self._counts()
        last = f"{mark}\n".encode()
        until = time.monotonic() + _ANSWER_S
        while not self._output.endswith(last):
            if self._stream.ended or time.monotonic() > until:
                raise Unknown("the container's keeper does not come to an end")
            self._take(_TICK_S)
        self.over = True
        said = bytes(self._output[: -len(last)])
        self._output.clear()
        return counts, said

    def close(self) -> None:
        """End the connection, and with it the container."""
        self._stream.close()

    def _send(self, request: str, text: str) -> None:
        self._stream.send(f"{request} {text.count(chr(10))}\n{text}".encode())

    def _take(self, timeout_s: float) -> None:
        """Sort what comes: output of the command, its exit code, answers."""
        for stream, payload in self._stream.frames(timeout_s):
            if stream == _STDERR:
                self._output += payload
            else:
                self._answers += payload
        self._read_exit()

    def _read_exit(self) -> None:
        while self._answers.startswith(b"exit "):
            line, newline, rest = self._answers.partition(b"\n")
            if not newline:
                return
            self.exit_code, self.over = int(line.split()[1]), True
            self._answers = rest

    def _counts(self) -> Counts:
        killed, peak, left = self._answer("ok")
        self.over |= left == "over"
        return Counts(int(killed), int(peak))

    def _answer(self, expected: str) -> list[str]:
        """What the keeper's next line says behind its first word."""
        until = time.monotonic() + _ANSWER_S
        while b"\n" not in self._answers:
            if self._stream.ended or time.monotonic() > until:
                said = (self._answers + self._output).decode("utf-8", "replace").strip()
                raise Unknown(f"the container's keeper does not answer{': ' if said else ''}{said[-500:]}")
            self._take(_TICK_S)
        line, _, self._answers = self._answers.partition(b"\n")
        self._read_exit()  # before the next answer is expected
        words = line.decode("utf-8", "replace").split()
        if len(words) != 4 or words[0] != expected:
            raise Unknown(f"the container's keeper says {line.decode('utf-8', 'replace')!r}")
        return words[1:]
