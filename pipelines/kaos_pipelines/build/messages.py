"""What BuildKit and its clients say to each other, as far as a build here needs it.

Field numbers as in BuildKit's own definitions: api/services/control, session/auth, session/secrets, and
tonistiigi/fsutil's wire.proto. Fields that nobody here reads are left out; unknown ones are skipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import betterproto


@dataclass(eq=False, repr=False)
class Time(betterproto.Message):
    """A google.protobuf.Timestamp; whether there is one is all that matters here."""

    seconds: int = betterproto.int64_field(1)
    nanos: int = betterproto.int32_field(2)


@dataclass(eq=False, repr=False)
class Vertex(betterproto.Message):
    digest: str = betterproto.string_field(1)
    name: str = betterproto.string_field(3)
    cached: bool = betterproto.bool_field(4)
    started: Time = betterproto.message_field(5)
    completed: Time = betterproto.message_field(6)
    error: str = betterproto.string_field(7)


@dataclass(eq=False, repr=False)
class VertexLog(betterproto.Message):
    vertex: str = betterproto.string_field(1)
    msg: bytes = betterproto.bytes_field(4)


@dataclass(eq=False, repr=False)
class StatusResponse(betterproto.Message):
    """News of a build: each vertex that is another than before, and what commands print."""

    vertexes: list[Vertex] = betterproto.message_field(1)
    logs: list[VertexLog] = betterproto.message_field(3)


@dataclass(eq=False, repr=False)
class Stat(betterproto.Message):
    """`mode` as in Go's os.FileMode; `mod_time` in nanoseconds."""

    path: str = betterproto.string_field(1)
    mode: int = betterproto.uint32_field(2)
    size: int = betterproto.int64_field(5)
    mod_time: int = betterproto.int64_field(6)


@dataclass(eq=False, repr=False)
class Packet(betterproto.Message):
    """`type`: one of those below. `id`: which of the files, counted in the order of their STATs."""

    type: int = betterproto.int32_field(1)
    stat: Stat = betterproto.message_field(2)
    id: int = betterproto.uint32_field(3)
    data: bytes = betterproto.bytes_field(4)


STAT, REQ, DATA, FIN, ERR = range(5)


@dataclass(eq=False, repr=False)
class CredentialsRequest(betterproto.Message):
    host: str = betterproto.string_field(1)


@dataclass(eq=False, repr=False)
class CredentialsResponse(betterproto.Message):
    username: str = betterproto.string_field(1)
    secret: str = betterproto.string_field(2)


@dataclass(eq=False, repr=False)
class GetSecretRequest(betterproto.Message):
    id: str = betterproto.string_field(1)


@dataclass(eq=False, repr=False)
class GetSecretResponse(betterproto.Message):
    data: bytes = betterproto.bytes_field(1)


@dataclass(eq=False, repr=False)
class HealthCheckRequest(betterproto.Message):
    service: str = betterproto.string_field(1)


@dataclass(eq=False, repr=False)
class HealthCheckResponse(betterproto.Message):
    status: int = betterproto.int32_field(1)


SERVING = 1
