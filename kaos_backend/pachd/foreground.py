"""Commands in the foreground: a stream in both directions, of the embedded engine's own service."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import grpc

from kaos_backend.pachd.connection import Connection
from kaos_backend.pachd.errors import translate
from kaos_formats import kaos_v1

# The engine gives up a client that is silent for long, and who looks at a shell may be.
_ALIVE_S = 60.0


class SdkForeground:
    """Implements ``port.ForegroundCall``."""

    def __init__(self, connection: Connection, ask: kaos_v1.ForegroundOpen) -> None:
        self._connection = connection
        self._ask = ask
        self._call: Any = None
        self._typed: queue.SimpleQueue[kaos_v1.ForegroundInput | None] = queue.SimpleQueue()
        self._closed = False

    def __iter__(self) -> Iterator[kaos_v1.ForegroundOutput]:
        try:
            with self._connection.client() as client:
                method = client._channel.stream_stream(
                    kaos_v1.method("Foreground"),
                    request_serializer=bytes,
                    response_deserializer=kaos_v1.ForegroundOutput.FromString,
                )
                self._call = method(self._requests())
                if self._closed:  # meanwhile, by another thread
                    self._call.cancel()
                yield from self._call
        except (grpc.RpcError, ConnectionError, grpc.FutureCancelledError) as error:
            if not self._closed:
                raise translate(error) from error
        finally:
            self._typed.put(None)

    def _requests(self) -> Iterator[kaos_v1.ForegroundInput]:
        yield kaos_v1.ForegroundInput(open=self._ask)
        while True:
            try:
                message = self._typed.get(timeout=_ALIVE_S)
            except queue.Empty:
                message = kaos_v1.ForegroundInput()
            if message is None:
                return
            yield message

    def type(self, typed: bytes, size: kaos_v1.TerminalSize | None) -> None:
        self._typed.put(kaos_v1.ForegroundInput(typed=typed, size=size))

    def close(self) -> None:
        self._closed = True
        self._typed.put(None)
        if self._call is not None:
            self._call.cancel()
