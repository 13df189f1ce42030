"""Files of this machine, handed to the embedded engine and by it: streams of its own service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, cast

import grpc
from pachyderm_sdk import Client

from kaos_backend.errors import KaosError, NoHandover
from kaos_backend.pachd.connection import Connection
from kaos_backend.pachd.errors import translate
from kaos_formats import kaos_v1
from kaos_formats.handover import File, Folder


class SdkIngest:
    """Implements ``port.IngestCall``."""

    def __init__(self, connection: Connection, folder: Folder, files: Iterable[list[File]]) -> None:
        self._connection = connection
        self._folder = folder
        self._files = files
        self._call: Any = None
        self._closed = False
        self._failure: list[BaseException] = []

    def __iter__(self) -> Iterator[kaos_v1.IngestResponse]:
        _require(self._connection)
        try:
            with self._connection.client() as client:
                method = client._channel.stream_stream(
                    kaos_v1.method("Ingest"),
                    request_serializer=bytes,
                    response_deserializer=kaos_v1.IngestResponse.FromString,
                )
                self._call = method(self._requests())
                if self._closed:  # meanwhile, by another thread
                    self._call.cancel()
                yield from self._call
        except (grpc.RpcError, ConnectionError, grpc.FutureCancelledError) as error:
            if self._failure:
                raise self._failure[0] from error
            raise translate(error) from error
        finally:
            # Whoever stops early wants none of it.
            self.close()

    def _requests(self) -> Iterator[kaos_v1.IngestRequest]:
        yield kaos_v1.IngestRequest(folder=self._folder)
        try:
            for block in self._files:
                yield kaos_v1.IngestRequest(files=block)
        except BaseException as error:
            self._failure.append(error)
            raise

    def used(self, file_set: str) -> None:
        # Its shortest time. Left alone it ends by itself, only later.
        with suppress(KaosError):
            self._connection.read(lambda c: c.pfs.renew_file_set(file_set_id=file_set, ttl_seconds=1))

    def close(self) -> None:
        self._closed = True
        if self._call is not None:
            self._call.cancel()


def export(connection: Connection, request: kaos_v1.ExportRequest) -> Iterator[kaos_v1.ExportResponse]:
    """See ``port.Pachd.export``."""
    _require(connection)

    def call(client: Client) -> Iterator[kaos_v1.ExportResponse]:
        method = client._channel.unary_stream(
            kaos_v1.method("Export"),
            request_serializer=bytes,
            response_deserializer=kaos_v1.ExportResponse.FromString,
        )
        return cast(Iterator[kaos_v1.ExportResponse], method(request))

    return connection.stream(call)


def _require(connection: Connection) -> None:
    if not connection.hands_over:
        raise NoHandover("this engine is not on the machine of the files, or not this user's")
