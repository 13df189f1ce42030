"""Streams to the server: changes of a commit, and large contents for the embedded engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

import grpc
from pachyderm_sdk import Client

from kaos_backend.domain.models import FileOp
from kaos_backend.pachd import wire
from kaos_backend.pachd.connection import Connection
from kaos_backend.pachd.errors import translate
from kaos_backend.pachd.prefetch import prefetch
from kaos_formats import kaos_v1

_T = TypeVar("_T")


def modify(connection: Connection, project: str, repo: str, commit_id: str, ops: Iterable[FileOp]) -> None:
    """See ``port.Pachd.modify``."""

    def call(client: Client, messages: Iterator[Any]) -> None:
        client.pfs.modify_file(cast(Any, messages))

    first = wire.set_commit(project, repo, commit_id)
    _send(connection, call, first, (wire.encode(project, op) for op in ops))


def receive(
    connection: Connection, name: bytes, size: int, offset: int, pieces: Iterable[bytes]
) -> kaos_v1.ReceiveResponse:
    """See ``port.Pachd.receive``."""

    def call(client: Client, messages: Iterator[Any]) -> kaos_v1.ReceiveResponse:
        method = client._channel.stream_unary(
            kaos_v1.method("Receive"),
            request_serializer=bytes,
            response_deserializer=kaos_v1.ReceiveResponse.FromString,
        )
        return cast(kaos_v1.ReceiveResponse, method(messages))

    first = kaos_v1.ReceiveRequest(object=name, size=size, offset=offset)
    return _send(connection, call, first, pieces)


def _send(
    connection: Connection, call: Callable[[Client, Iterator[Any]], _T], first: object, items: Iterable[Any]
) -> _T:
    """One stream of requests, ``items`` after the first one. What they raise is raised from here."""
    failure: list[BaseException] = []

    def requests() -> Iterator[object]:
        yield first
        try:
            yield from prefetch(items)
        except BaseException as error:
            failure.append(error)
            raise

    try:
        # Not `write`: the iterator can be consumed only once.
        with connection.client() as client:
            return call(client, requests())
    except (grpc.RpcError, ConnectionError) as error:
        if failure:
            raise failure[0] from error
        raise translate(error) from error
