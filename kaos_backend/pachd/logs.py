"""Logs: as the files that they are where the engine is on this machine, line by line elsewhere."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc
from pachyderm_sdk.api import pps

from kaos_backend import errors
from kaos_backend.domain.models import LogBlock
from kaos_backend.pachd import wire
from kaos_backend.pachd.connection import Connection, read_by_hand
from kaos_backend.pachd.errors import translate
from kaos_formats import kaos_v1, loglines

_LOG_RANGES, _GET_LOGS = kaos_v1.method("LogRanges"), "/pps_v2.API/GetLogs"
_T = TypeVar("_T")
_MARK = LogBlock("", (), None, None, b"")


class SdkLogStream:
    """Implements ``port.LogStream``."""

    def __init__(self, connection: Connection, request: pps.GetLogsRequest) -> None:
        self._connection = connection
        self._request = request
        self._of_one = bool(request.datum.id or request.data_filters)
        self._call: Any = None
        self._closed = False

    def __iter__(self) -> Iterator[LogBlock]:
        marked = bool(self._request.follow and self._request.tail and not self._of_one)
        # Another machine's paths mean nothing here, and must not: a pachd may name any.
        if self._connection.embedded:
            with contextlib.suppress(errors.NeedsEmbeddedEngine):
                for place in self._read(_LOG_RANGES, kaos_v1.LogRange.FromString, self._request):
                    if place.file:
                        yield from self._lines(place)
                    elif marked:
                        yield _MARK
                return
        yield from self._marked_elsewhere() if marked else self._elsewhere()

    def close(self) -> None:
        self._closed = True
        if self._call is not None:
            self._call.cancel()

    def _lines(self, place: kaos_v1.LogRange) -> Iterator[LogBlock]:
        try:
            fd = os.open(place.file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # deleted with its job
        except OSError as error:
            raise errors.Internal(
                f"the log {os.fsdecode(place.file)!r} cannot be read: {error.strerror}",
                hint="backend and engine must run as the same user of one machine",
            ) from error
        try:
            for block in loglines.blocks(fd, place.at, place.to):
                yield LogBlock(place.datum, tuple(place.paths), *block)
                if self._closed:
                    return
        finally:
            os.close(fd)

    def _elsewhere(self) -> Iterator[LogBlock]:
        # A pachd takes the last lines of all that is asked for together.
        tail = self._request.tail if self._of_one else 0
        return self._get_logs(self._request.follow, tail)

    def _marked_elsewhere(self) -> Iterator[LogBlock]:
        """Read once, and once more to follow: only so is it known where what was there ends."""
        there: Counter[str] = Counter()
        for line in self._get_logs(follow=False):
            there[line.datum] += 1
            yield line
        yield _MARK
        for line in self._get_logs(follow=True):
            there[line.datum] -= 1
            if there[line.datum] < 0:
                yield line

    def _get_logs(self, follow: bool, tail: int = 0) -> Iterator[LogBlock]:
        asked = self._request
        request = pps.GetLogsRequest(job=asked.job, datum=asked.datum, follow=follow, tail=tail)
        request.data_filters = asked.data_filters
        return self._read(_GET_LOGS, wire.log_message, request)

    def _read(self, method: str, read: Callable[[bytes], _T], request: pps.GetLogsRequest) -> Iterator[_T]:
        if self._closed:
            return
        try:
            with self._connection.client() as client:
                self._call = read_by_hand(client, method, read)(request)
                if self._closed:  # meanwhile, by another thread
                    self._call.cancel()
                for told in self._call:
                    yield told
                    if self._closed:
                        return
        except (grpc.RpcError, ConnectionError, grpc.FutureCancelledError) as error:
            if self._closed:
                return
            translated = translate(error)
            if isinstance(translated, errors.NotFound):
                return
            raise translated from error
