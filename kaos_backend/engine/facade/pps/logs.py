"""`pps_v2.API/GetLogs`: reading and following. Reference: pachyderm-api.md section 15.

Deviation, on purpose: following a *job* ends when the job has ended and its last line was sent.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
from pachyderm_sdk.api import pps

from kaos_backend.engine.errors import InvalidArgument, Unknown
from kaos_backend.engine.facade import wire
from kaos_backend.engine.facade.pps import convert
from kaos_backend.engine.facade.rpc import Handlers, park, server_stream
from kaos_backend.engine.jobs import enginelog
from kaos_backend.engine.jobs.db.rows import JobKey
from kaos_backend.engine.jobs.logquery import LogQuery, LogReading, Source
from kaos_backend.engine.jobs.run.logs import Span
from kaos_backend.engine.jobs.service import Jobs
from kaos_formats import kaos_v1
from kaos_formats.loglines import Line
from kaos_formats.protobuf import field, number, text

# User code writes its log without telling the engine; this is how late a followed line can be, in seconds.
_FOLLOW_S = 0.1
_DAY_US = 24 * 3600 * 1_000_000


class LogCalls:
    """Logs of pipelines, jobs and datums; `own` is the engine's."""

    def __init__(self, jobs: Jobs, own: Path) -> None:
        self._jobs = jobs
        self._own = own
        self._store = jobs.store

    def get_logs(
        self, request: pps.GetLogsRequest, context: grpc.ServicerContext
    ) -> Iterator[pps.LogMessage | bytes]:
        if (query := self._query(request)) is None:
            seconds = request.since.total_seconds() if request.since else 0.0
            since_us = self._jobs.clock() - (int(seconds * 1e6) if seconds > 0 else _DAY_US)
            for said in enginelog.lines(self._own, since_us, max(0, request.tail)):
                yield pps.LogMessage(message=said)
            return
        reading = self._jobs.read_logs(query)
        for spans in self._polls(reading, request.follow, context):
            for source, span in spans:
                encode = _encoder(source)
                for line in reading.lines(source, span):
                    yield encode(line)

    def ranges(self, request: pps.GetLogsRequest, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Where that is what `get_logs` answers: `kaos_v1.Engine/LogRanges`."""
        query = self._query(request)
        if query is None or query.since_us:
            raise InvalidArgument("a job must be specified, and no time")
        reading = self._jobs.read_logs(query)
        for turn, spans in enumerate(self._polls(reading, request.follow, context)):
            for source, span in spans:
                paths, file = [file.path for file in source.files], os.fsencode(source.tail.path)
                yield bytes(
                    kaos_v1.LogRange(datum=source.datum, paths=paths, file=file, at=span.at, to=span.to)
                )
            if turn == 0:
                yield bytes(kaos_v1.LogRange())

    def _polls(
        self, reading: LogReading, follow: bool, context: grpc.ServicerContext
    ) -> Iterator[Iterator[tuple[Source, Span]]]:
        """The lines that there are, and those that come as long as the caller follows."""
        while True:
            since = self._store.changes.version()
            spans, ended = reading.poll()
            yield spans
            if ended or not follow or not context.is_active():
                return
            park(self._store, context)
            self._store.changes.wait(since, _FOLLOW_S)

    def _query(self, request: pps.GetLogsRequest) -> LogQuery | None:
        job_message = request.job if request.job.id else None
        if request.datum.id and request.datum.job.id and job_message is None:
            job_message = request.datum.job
        named = request.pipeline if request.pipeline.name else job_message.pipeline if job_message else None
        if named is None or not named.name:
            if job_message is not None:
                raise Unknown("pipeline must be specified for the given job")
            if request.datum.id:
                raise Unknown("must specify the Job or Pipeline that the datum is from")
            return None
        pipeline = convert.pipeline_key(named)
        self._jobs.pipeline(pipeline)
        job = None
        if job_message is not None:
            inner = job_message.pipeline
            if inner.name and convert.pipeline_key(inner) != pipeline:
                raise Unknown("job is from the wrong pipeline")
            job = self._jobs.job(JobKey(pipeline, job_message.id)).key
        since_us = 0
        seconds = request.since.total_seconds() if request.since else 0.0
        if seconds > 0:
            since_us = self._jobs.clock() - int(seconds * 1e6)
        elif job is None:
            since_us = self._jobs.clock() - _DAY_US
        return LogQuery(
            pipeline,
            job,
            request.datum.id,
            tuple(request.data_filters),
            request.master,
            since_us,
            max(0, request.tail),
        )

    def handlers(self) -> Handlers:
        return {"GetLogs": server_stream(self.get_logs, pps.GetLogsRequest)}


def _encoder(source: Source) -> Callable[[Line], bytes]:
    """A function that encodes the lines of one log: by hand, as a trial may write thousands a second.

    LogMessage{user 7, ts 8, message 9}; the rest is the same for all of them.
    """
    head = bytes(
        pps.LogMessage(
            project_name=source.job.pipeline.project,
            pipeline_name=source.job.pipeline.name,
            job_id=source.job.id,
            datum_id=source.datum if source.job.id else "",
            master=not source.datum,
            data=[pps.InputFile(path=f.path, hash=f.hash) for f in source.files],
        )
    )

    def encode(line: Line) -> bytes:
        return b"".join(
            (head, number(7, line.user), field(8, wire.microseconds(line.ts_us)), text(9, line.text))
        )

    return encode
