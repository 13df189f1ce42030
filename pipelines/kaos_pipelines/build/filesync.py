"""The files of a build, as BuildKit asks its client for them (moby.filesync.v1.FileSync).

The client tells of every file first, in the order of their paths; BuildKit asks for the content of those that
it wants, in any order, and says when it has got all. Protocol: tonistiigi/fsutil, send.go.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from kaos_pipelines.build.context import Context
from kaos_pipelines.build.messages import DATA, ERR, FIN, REQ, STAT, Packet, Stat

_FOLDER = 1 << 31 | 0o755  # Go's os.ModeDir
_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Sent:
    """A file as it is sent: what it holds, or where that is."""

    mode: int
    content: bytes | Path

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def open(self) -> IO[bytes]:
        return BytesIO(self.content) if isinstance(self.content, bytes) else self.content.open("rb")


Folder = Mapping[str, Sent]
"""Files by their path."""


def folders(dockerfile: str, context: Context) -> dict[str, Folder]:
    """What a build may ask for, by the names that the Dockerfile frontend has for it."""
    files = {path: Sent(file.mode, file.source) for path, file in context.files.items()}
    return {"dockerfile": {"Dockerfile": Sent(0o644, dockerfile.encode())}, "context": files}


class FileSync:
    """Answers with `folders`."""

    def __init__(self, folders: Mapping[str, Folder]) -> None:
        self._folders = folders

    def __mapping__(self) -> dict[str, Handler]:
        method = "/moby.filesync.v1.FileSync/DiffCopy"
        return {method: Handler(self._send, Cardinality.STREAM_STREAM, Packet, Packet)}

    async def _send(self, stream: Stream[Packet, Packet]) -> None:
        assert stream.metadata is not None
        name = str(stream.metadata.get("dir-name", ""))
        if name not in self._folders:
            raise GRPCError(Status.NOT_FOUND, f"this build has no folder {name!r}")
        # Where BuildKit names files it wants these at most; the context is without what is ignored already.
        named = {str(path) for key in _NAMING for path in stream.metadata.getall(key, ())}
        ignores = name == "context" and named == {".dockerignore"}
        files = {} if ignores else self._folders[name]
        try:
            numbered = []
            for path, file in _ordered(files):
                numbered.append(file)
                await stream.send_message(Packet(type=STAT, stat=_stat(path, file)))
            await stream.send_message(Packet(type=STAT))
            async for wanted in _requests(stream):
                found = numbered[wanted] if wanted < len(numbered) else None
                if found is None:
                    raise GRPCError(Status.INVALID_ARGUMENT, f"there is no file number {wanted}")
                with found.open() as data:
                    while chunk := data.read(_CHUNK):
                        await stream.send_message(Packet(type=DATA, id=wanted, data=chunk))
                await stream.send_message(Packet(type=DATA, id=wanted))
            await stream.send_message(Packet(type=FIN))
        except OSError as error:
            await stream.send_message(Packet(type=ERR, data=str(error).encode()))
            raise GRPCError(Status.INTERNAL, str(error)) from error


_NAMING = ("include-patterns", "followpaths")


async def _requests(stream: Stream[Packet, Packet]) -> AsyncIterator[int]:
    """The numbers of the files that are asked for, until the other side has all."""
    async for packet in stream:
        if packet.type == REQ:
            yield packet.id
        elif packet.type == ERR:
            raise GRPCError(Status.ABORTED, packet.data.decode(errors="replace"))
        elif packet.type == FIN:
            return


def _ordered(files: Folder) -> Iterator[tuple[str, Sent | None]]:
    """Files and the folders above them (None), each folder right before what it holds."""
    above = {str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."}
    for path in sorted({*files, *above}, key=lambda path: path.split("/")):
        yield path, files.get(path)


def _stat(path: str, file: Sent | None) -> Stat:
    """No times: layers are the same for the same bundle."""
    return Stat(path=path, mode=_FOLDER) if file is None else Stat(path=path, mode=file.mode, size=file.size)
