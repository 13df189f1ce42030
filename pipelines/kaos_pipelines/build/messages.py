"""What BuildKit and its clients say to each other, as far as a build here needs it.

Field numbers as in BuildKit's own definitions: api/services/control, session/auth, session/secrets, and
tonistiigi/fsutil's wire.proto. Fields that nobody here reads are passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from kaos_formats.protobuf import field, fields, number, text, values

STAT, REQ, DATA, FIN, ERR = range(5)
"""Types of packets."""


@dataclass(frozen=True, slots=True)
class Vertex:
    """A node of a build's graph, as far as it has got. `error` is "" where there is none (yet)."""

    digest: str
    name: str
    cached: bool
    started: bool
    completed: bool
    error: str


@dataclass(frozen=True, slots=True)
class VertexLog:
    """A piece of what the command of a vertex prints."""

    vertex: str
    msg: bytes


@dataclass(frozen=True, slots=True)
class StatusResponse:
    """News of a build: each vertex that is another than before, and what commands print."""

    vertexes: tuple[Vertex, ...]
    logs: tuple[VertexLog, ...]

    @classmethod
    def FromString(cls, data: bytes) -> Self:
        """Raises ValueError."""
        found = list(fields(memoryview(data)))
        vertexes = tuple(_vertex(content) for number, content in found if number == 1)
        return cls(vertexes, tuple(_log(content) for number, content in found if number == 3))


def _vertex(data: memoryview) -> Vertex:
    cached = dict(values(data)).get(4, 0) == 1
    found = dict(fields(data))
    digest, name, error = (str(found.get(number, b""), "utf-8", "replace") for number in (1, 3, 7))
    return Vertex(digest, name, cached, 5 in found, 6 in found, error)


def _log(data: memoryview) -> VertexLog:
    found = dict(fields(data))
    return VertexLog(str(found.get(1, b""), "utf-8", "replace"), bytes(found.get(4, b"")))


@dataclass(frozen=True, slots=True)
class Stat:
    """A file: `mode` as in Go's os.FileMode, `size` in bytes. Its time is the epoch."""

    path: str
    mode: int
    size: int = 0

    def __bytes__(self) -> bytes:
        return text(1, self.path) + number(2, self.mode) + number(5, self.size)


@dataclass(frozen=True, slots=True)
class Packet:
    """`type`: one of the above. `id`: which of the files, counted in the order of their STATs."""

    type: int
    id: int = 0
    data: bytes = b""
    stat: Stat | None = None

    def SerializeToString(self) -> bytes:
        """The message, encoded."""
        stat = field(2, bytes(self.stat)) if self.stat is not None else b""
        data = field(4, self.data) if self.data else b""
        return b"".join((number(1, self.type), stat, number(3, self.id), data))

    @classmethod
    def FromString(cls, data: bytes) -> Self:
        """Without its `stat`. Raises ValueError."""
        kind, file, content = 0, 0, b""
        for at, value in values(memoryview(data)):
            if at == 1 and isinstance(value, int):
                kind = value
            elif at == 3 and isinstance(value, int):
                file = value
            elif at == 4 and not isinstance(value, int):
                content = bytes(value)
        return cls(kind, file, content)


@dataclass(frozen=True, slots=True)
class Named:
    """A CredentialsRequest (a host's), a GetSecretRequest (an id's) or a HealthCheckRequest (a service's)."""

    name: str

    @classmethod
    def FromString(cls, data: bytes) -> Self:
        """Raises ValueError."""
        return cls(str(dict(fields(memoryview(data))).get(1, b""), "utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class CredentialsResponse:
    username: str = ""
    secret: str = ""

    def SerializeToString(self) -> bytes:
        return text(1, self.username) + text(2, self.secret)


@dataclass(frozen=True, slots=True)
class GetSecretResponse:
    data: bytes

    def SerializeToString(self) -> bytes:
        return field(1, self.data)


@dataclass(frozen=True, slots=True)
class HealthCheckResponse:
    """That says SERVING."""

    def SerializeToString(self) -> bytes:
        return number(1, 1)
