"""The session of a build: a connection on which BuildKit makes calls to whoever asked for the build.

`POST /session` of the Docker engine's API turns its connection into one of HTTP/2
(https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Session); what is called is gRPC.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from docker.auth import INDEX_URL, load_config
from docker.errors import DockerException
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from kaos_formats.docker_engine import socket_path
from kaos_pipelines.build.messages import CredentialsResponse, GetSecretResponse, HealthCheckResponse, Named

_HEADER = "X-Docker-Expose-Session"
_LONGEST_ANSWER = 1 << 16
# For an engine that hangs: one that is there answers at once.
_ANSWER_S = 60.0
_HUB = "registry-1.docker.io"

# What goes wrong here the builder says, as what became of the build.
logging.getLogger("grpclib").propagate = False
logging.getLogger("grpclib").addHandler(logging.NullHandler())


class NoSessions(Exception):
    """The Docker engine knows no sessions: it has no BuildKit."""


class Service(Protocol):
    """Calls that a session answers, as grpclib has them."""

    def __mapping__(self) -> dict[str, Handler]: ...


@contextmanager
def session(host: str, services: Sequence[Service]) -> Iterator[str]:
    """Answer the calls of builds that are asked for with this session, by the id that it gives.

    `host` as in DOCKER_HOST. Raises NoSessions, also where the engine is not on this machine; OSError.
    """
    name = uuid.uuid4().hex
    served = [_Health(), *services]
    connection = _connect(host, name, [method for one in served for method in one.__mapping__()])
    loop, over = asyncio.new_event_loop(), asyncio.Event()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(_serve(connection, served, over))

    thread = threading.Thread(target=run, name="session", daemon=True)
    thread.start()
    try:
        yield name
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()


def rehearse() -> None:
    """Serve a session that nobody calls."""
    ours, theirs = socket.socketpair()
    over = asyncio.Event()
    over.set()
    with theirs:
        asyncio.run(_serve(ours, [_Health()], over))


def _connect(host: str, name: str, methods: Sequence[str]) -> socket.socket:
    path = socket_path(host)
    if path is None:
        raise NoSessions(host)
    lines = [
        "POST /session HTTP/1.1",
        "Host: docker",
        "Connection: Upgrade",
        "Upgrade: h2c",
        f"{_HEADER}-Uuid: {name}",
        f"{_HEADER}-Name: kaos",
        # What tells which files BuildKit has got already: none, as equal times hide changes from it.
        f"{_HEADER}-Sharedkey: {name}",
        *(f"{_HEADER}-Grpc-Method: {method}" for method in methods),
    ]
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_ANSWER_S)
    try:
        connection.connect(path)
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = bytearray()
        # Byte by byte: what follows the answer's head belongs to HTTP/2.
        while not answer.endswith(b"\r\n\r\n") and len(answer) < _LONGEST_ANSWER:
            if not (byte := connection.recv(1)):
                break
            answer += byte
        if answer.split(b" ", 2)[1:2] != [b"101"]:
            raise NoSessions(bytes(answer).partition(b"\r\n")[0].decode(errors="replace"))
    except BaseException:
        connection.close()
        raise
    return connection


class _Server(Server):
    async def take_over(self, connection: socket.socket) -> asyncio.Transport:
        """Serve a connection that is there already."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_accepted_socket(self._protocol_factory, connection)
        return transport


async def _serve(connection: socket.socket, services: Sequence[Service], over: asyncio.Event) -> None:
    transport = await _Server(services).take_over(connection)
    await over.wait()
    transport.abort()


class _Health:
    """Tells the builder that its client is alive."""

    def __mapping__(self) -> dict[str, Handler]:
        kinds = (Cardinality.UNARY_UNARY, Named, HealthCheckResponse)
        return {"/grpc.health.v1.Health/Check": Handler(self._check, *kinds)}

    async def _check(self, stream: Stream[Named, HealthCheckResponse]) -> None:
        await stream.recv_message()
        await stream.send_message(HealthCheckResponse())


class Secrets:
    """The values of secrets by id."""

    def __init__(self, values: Mapping[str, bytes]) -> None:
        self._values = values

    def __mapping__(self) -> dict[str, Handler]:
        kinds = (Cardinality.UNARY_UNARY, Named, GetSecretResponse)
        return {"/moby.buildkit.secrets.v1.Secrets/GetSecret": Handler(self._get, *kinds)}

    async def _get(self, stream: Stream[Named, GetSecretResponse]) -> None:
        asked = await stream.recv_message()
        if asked is None or asked.name not in self._values:
            raise GRPCError(Status.NOT_FOUND, f"secret {asked.name if asked else ''} not found")
        await stream.send_message(GetSecretResponse(data=self._values[asked.name]))


class Logins:
    """Who the user is to a registry, by the user's own Docker configuration (`docker login`)."""

    def __mapping__(self) -> dict[str, Handler]:
        kinds = (Cardinality.UNARY_UNARY, Named, CredentialsResponse)
        return {"/moby.filesync.v1.Auth/Credentials": Handler(self._tell, *kinds)}

    async def _tell(self, stream: Stream[Named, CredentialsResponse]) -> None:
        asked = await stream.recv_message()
        host = asked.name if asked is not None else ""
        try:
            # It may be a program that knows.
            found = await asyncio.to_thread(_login, INDEX_URL if host == _HUB else host)
        except DockerException as error:
            raise GRPCError(Status.UNKNOWN, f"the login at {host} cannot be read: {error}") from error
        await stream.send_message(found)


def _login(registry: str) -> CredentialsResponse:
    """Nobody's, where there is none. Raises DockerException."""
    found = load_config().resolve_authconfig(registry) or {}
    # Those of files and those of credential helpers are written differently.
    login = {key.lower(): str(value) for key, value in found.items() if value}
    if "identitytoken" in login:
        return CredentialsResponse(secret=login["identitytoken"])
    return CredentialsResponse(username=login.get("username", ""), secret=login.get("password", ""))
