"""The builder's end of `shim`: what a RUN asks of pip is done here, outside its sandbox.

A RUN's own processes are strangers: they may send anything at any time. So nothing is read from their files;
what pip has to read they send, and that is what counts as read and what pip gets to see.
"""

from __future__ import annotations

import json
import os
import posixpath
import shutil
import socket
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedRWPair
from pathlib import Path
from typing import IO, Any

from kaos_pipelines.build.errors import Refused
from kaos_pipelines.build.installers import lock_files
from kaos_pipelines.build.materials import MAX_NESTING
from kaos_pipelines.build.pip import PipCommand, references
from kaos_pipelines.build.rootfs import RootFs

SOCKET = "socket"
LONGEST_MESSAGE = 1 << 22
_NONSENSE = (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError, tarfile.TarError)


@dataclass(frozen=True, slots=True)
class Request:
    """A tool that a RUN called, with what it was given."""

    tool: str
    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Execute:
    """The answer that it is to be carried out in the RUN's own sandbox, with these variables set."""

    words: Sequence[str]
    env: Mapping[str, str]


class Client:
    """Who called: where the output goes, and whose files are asked for."""

    def __init__(self, stream: BufferedRWPair) -> None:
        self._stream = stream

    def request(self) -> Request:
        """Raises ValueError for what is none."""
        found = self._receive()
        request = Request(found["tool"], tuple(found["argv"]), found["cwd"], dict(found["env"]))
        texts = (request.tool, *request.argv, request.cwd, *request.env, *request.env.values())
        if not all(isinstance(text, str) and "\0" not in text for text in texts):
            raise ValueError("no text")
        return request

    def say(self, line: str) -> None:
        self._send({"say": line})

    def answer(self, answer: int | Execute) -> None:
        if isinstance(answer, int):
            self._send({"exit": answer})
        else:
            self._send({"exec": list(answer.words), "env": dict(answer.env)})

    def fetch(self, path: str, fs: RootFs) -> str:
        """Put a file or folder of the RUN into `fs`, under its path; "file", "folder" or "" for none."""
        self._send({"send": path})
        told = self._receive()
        kind, size = told["kind"], int(told["size"])
        if kind == "file":
            fs.mkdir(posixpath.dirname(path))
            with fs.resolve(path).open("wb") as file:
                self._copy(size, file)
        elif kind == "folder":
            with tempfile.TemporaryFile(dir=fs.root.parent) as file:
                self._copy(size, file)
                file.seek(0)
                with tarfile.open(fileobj=file, mode="r:") as tar:
                    tar.extractall(fs.mkdir(path), filter=_harmless)  # noqa: S202
        return str(kind)

    def _copy(self, size: int, out: IO[bytes]) -> None:
        while size > 0:
            block = self._stream.read(min(size, 1 << 20))
            if not block:
                raise EOFError("the caller is gone")
            out.write(block)
            size -= len(block)

    def _send(self, message: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(message).encode() + b"\n")
        self._stream.flush()

    def _receive(self) -> dict[str, Any]:
        line = self._stream.readline(LONGEST_MESSAGE)
        if not line.endswith(b"\n"):
            raise EOFError("the caller is gone")
        found = json.loads(line)
        if not isinstance(found, dict):
            raise ValueError("no object")
        return found


def _harmless(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
    try:
        return tarfile.data_filter(member, path)
    except tarfile.FilterError:
        return None


@contextmanager
def serve(folder: Path, handle: Callable[[Request, Client], int | Execute]) -> Iterator[None]:
    """Answer what is asked at `folder`/socket, one after the other, until the end of the block."""
    listener = socket.socket(socket.AF_UNIX)
    # The path of a socket must be short.
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        listener.bind(f"/proc/self/fd/{fd}/{SOCKET}")
    finally:
        os.close(fd)
    listener.listen()
    talking: list[socket.socket] = []
    ended = threading.Event()

    def talk(connection: socket.socket) -> None:
        client = Client(connection.makefile("rwb"))
        request = client.request()
        try:
            answer = handle(request, client)
        except (Refused, OSError) as error:
            client.say(f"ERROR: {error}")
            answer = 1
        client.answer(answer)

    def serve_all() -> None:
        while not ended.is_set():
            # One that ends, or sends nonsense, has nobody to tell.
            with suppress(*_NONSENSE):
                connection, _ = listener.accept()
                with connection:
                    talking[:] = [connection]
                    talk(connection)

    serving = threading.Thread(target=serve_all, daemon=True)
    serving.start()
    try:
        yield
    finally:
        ended.set()
        for one in (listener, *talking):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        serving.join()
        listener.close()
        (folder / SOCKET).unlink(missing_ok=True)


def gather(command: PipCommand, client: Client, fs: RootFs) -> None:
    """Fetch every file that `command` makes pip read. What is missing is left to whoever looks for it."""
    for argument in command.arguments:
        if argument.path is not None:
            _gather(argument.kind, argument.path, command.cwd, client, fs, 0)


def _gather(kind: str, path: str, cwd: str, client: Client, fs: RootFs, nesting: int) -> None:
    at = posixpath.normpath(posixpath.join(cwd, path))
    if at.startswith(("/dev/", "/proc/")):
        raise Refused(f"pip cannot read {path} here; write it to a file first")
    if nesting > MAX_NESTING:
        raise Refused(f"{path} includes itself")
    if kind == "lock":
        fs.mkdir(at)

        def text_of(name: str) -> str | None:
            file = fs.resolve(name, at)
            return file.read_text("utf-8", "replace") if file.is_file() else None

        for name in lock_files(text_of):
            client.fetch(posixpath.normpath(posixpath.join(at, name)), fs)
        return
    if client.fetch(at, fs) == "file" and kind in ("requirement", "constraint"):
        text = fs.resolve(at).read_text("utf-8", "replace")
        for nested, name in references(text):
            if not name.startswith("/"):
                folder = cwd if nested == "local" else posixpath.dirname(at)
                _gather(nested, name, folder, client, fs, nesting + 1)


def lay_out(folder: Path, interpreter: Path, tools: Sequence[str], refused: Mapping[str, str]) -> None:
    """What a RUN sees as /run/kaos, in an empty folder: the tools that are asked for here, by their names.

    `refused`: program → what it prints before it fails, or before it succeeds if that starts with "noted".
    """
    here = Path(__file__).parent
    programs, package = folder / "bin", folder / "lib" / "pip"
    programs.mkdir()
    package.mkdir(parents=True)
    shutil.copyfile(here / "shim.py", folder / "shim.py")
    shutil.copyfile(here / "shim_pip.py", package / "__init__.py")
    call = f'exec "{interpreter}" -I -S /run/kaos/shim.py'
    (package / "__main__.py").write_text(
        f"import os, sys\nos.execv({str(interpreter)!r}, [{str(interpreter)!r}, '-I', '-S', "
        "'/run/kaos/shim.py', 'pip', *sys.argv[1:]])\n"
    )
    for name in tools:
        program = "pip" if name.startswith("pip") else name
        _script(programs / name, f'{call} {program} "$@"\n')
    for name, why in refused.items():
        end = 0 if why.startswith("noted") else 100
        _script(programs / name, f"cat <<'EOF'\n{name}: {why}\nEOF\nexit {end}\n")


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)
