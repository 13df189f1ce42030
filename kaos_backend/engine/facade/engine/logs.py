"""`kaos_v1.Engine`: logs, as places in files."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
from pachyderm_sdk.api import pps

from kaos_backend.engine.facade.rpc import Handlers, server_stream
from kaos_formats import kaos_v1

Read = Callable[[pps.GetLogsRequest, grpc.ServicerContext], Iterator[bytes]]


class LogService:
    """The part of the service that is about logs. `read` gives encoded `kaos_v1.LogRange`s."""

    name = kaos_v1.SERVICE

    def __init__(self, read: Read) -> None:
        self._read = read

    def handlers(self) -> Handlers:
        return {"LogRanges": server_stream(self._read, pps.GetLogsRequest, patient=True)}
