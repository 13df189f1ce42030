"""`pps_v2.API/GetLogs`: reading and following. Reference: pachyderm-api.md section 15.

Deviation, on purpose: following a *job* ends when the job has ended and its last line was sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import grpc
from pachyderm_sdk.api import pps

from kaos_backend.engine.errors import InvalidArgument
from kaos_backend.engine.facade.pps import convert
from kaos_backend.engine.facade.rpc import Handlers, park, server_stream
from kaos_backend.engine.jobs.db import tables
from kaos_backend.engine.jobs.db.rows import DatumRow, Job, JobKey, PipelineKey
from kaos_backend.engine.jobs.run.logs import Line, Tail
from kaos_backend.engine.jobs.schedule.states import TERMINAL_JOBS, DatumState
from kaos_backend.engine.jobs.service import Jobs
from kaos_backend.engine.jobs.spec.plan import File

# User code writes its log without telling the engine; this is how late a followed line can be, in seconds.
_FOLLOW_S = 0.1
_DAY_US = 24 * 3600 * 1_000_000


@dataclass(slots=True)
class _Source:
    """One log file that is read, and what its lines are labelled with."""

    job: JobKey
    datum: str
    files: Sequence[File]
    tail: Tail
    tailed: bool = False


@dataclass(frozen=True, slots=True)
class _Query:
    """A checked request. `since_us` is an absolute time."""

    pipeline: PipelineKey
    job: JobKey | None
    datum: str
    filters: tuple[str, ...]
    master: bool
    since_us: int


@dataclass(slots=True)
class _Reading:
    """What was read so far: open files by (job, datum), and those that nothing is added to any more."""

    sources: dict[tuple[int, str], _Source] = field(default_factory=dict)
    closed: set[tuple[int, str]] = field(default_factory=set)
    closed_jobs: set[int] = field(default_factory=set)


class LogCalls:
    """Logs of pipelines, jobs and datums."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._store = jobs.store

    def get_logs(
        self, request: pps.GetLogsRequest, context: grpc.ServicerContext
    ) -> Iterator[pps.LogMessage]:
        query = self._query(request)
        if query is None:
            yield pps.LogMessage(
                message="the engine's own log is the file logs/engine.log of its home directory"
            )
            return
        reading = _Reading()
        while True:
            since = self._store.changes.version()
            sources, ended = self._sources(query, reading)
            for source in sources:
                lines = (x for x in source.tail.read(whole=ended) if x.ts_us >= query.since_us)
                # Of the past only the tail; what comes while following is all wanted.
                for line in (
                    deque(lines, maxlen=request.tail) if request.tail > 0 and not source.tailed else lines
                ):
                    yield _message(source, line)
                source.tailed = True
            if ended or not request.follow or not context.is_active():
                return
            park(self._store, context)
            self._store.changes.wait(since, _FOLLOW_S)

    def _query(self, request: pps.GetLogsRequest) -> _Query | None:
        job_message = request.job if request.job.id else None
        if request.datum.id and request.datum.job.id and job_message is None:
            job_message = request.datum.job
        named = request.pipeline if request.pipeline.name else job_message.pipeline if job_message else None
        if named is None or not named.name:
            if job_message is not None:
                raise InvalidArgument("pipeline must be specified for the given job")
            if request.datum.id:
                raise InvalidArgument("must specify the Job or Pipeline that the datum is from")
            return None
        pipeline = convert.pipeline_key(named)
        job = None
        with self._store.read() as db:
            tables.get_pipeline(db, pipeline)
            if job_message is not None:
                inner = job_message.pipeline
                if inner.name and convert.pipeline_key(inner) != pipeline:
                    raise InvalidArgument("job is from the wrong pipeline")
                job = JobKey(pipeline, job_message.id)
                tables.get_job(db, job)
        since_us = 0
        seconds = request.since.total_seconds() if request.since else 0.0
        if seconds > 0:
            since_us = self._jobs.clock() - int(seconds * 1e6)
        elif job is None:
            since_us = self._jobs.clock() - _DAY_US
        return _Query(pipeline, job, request.datum.id, tuple(request.data_filters), request.master, since_us)

    def _sources(self, query: _Query, reading: _Reading) -> tuple[list[_Source], bool]:
        """The files that may have new lines, and whether no line will ever be added after these."""
        # What runs is looked up before what is done: a datum in between is found done the next time.
        with self._store.read() as db:
            if query.job is not None:
                jobs = [tables.get_job(db, query.job)]
            else:
                all_jobs = tables.jobs(db, key=query.pipeline)
                jobs = [
                    job
                    for job in all_jobs
                    if job.seq not in reading.closed_jobs
                    and (job.finished_us is None or job.finished_us >= query.since_us)
                ]
        found: list[_Source] = []
        quiet = True
        for job in jobs:
            run = self._jobs.controller.run_of(job.seq)
            job_quiet = job.state in TERMINAL_JOBS and run is None
            quiet &= job_quiet
            if job_quiet:
                reading.closed_jobs.add(job.seq)
            if query.master:
                found.append(self._open(reading, job, None))
                continue
            running = {r.datum.id for r in run.running()} if run else set()
            with self._store.read() as db:
                ended = tables.ended_datums(db, job.seq, everything=job_quiet)
                for id in sorted((ended | running) if not query.datum else (ended | running) & {query.datum}):
                    if (job.seq, id) in reading.closed:
                        continue
                    if (job.seq, id) not in reading.sources:
                        row = tables.find_datum(db, job.seq, id)
                        if row is None or not _passes(row, query):
                            reading.closed.add((job.seq, id))
                            continue
                        self._open(reading, job, row)
                    found.append(reading.sources[(job.seq, id)])
                    if id in ended:
                        reading.closed.add((job.seq, id))
                        del reading.sources[(job.seq, id)]
        return found, quiet and query.job is not None

    def _open(self, reading: _Reading, job: Job, row: DatumRow | None) -> _Source:
        logs = self._jobs.logs
        datum = row.id if row else ""
        if (job.seq, datum) not in reading.sources:
            # A skipped datum's lines are those of the job that ran it.
            key = JobKey(job.key.pipeline, row.source) if row else job.key
            path = logs.datum(key, datum) if row else logs.master(key)
            reading.sources[(job.seq, datum)] = _Source(key, datum, row.files if row else (), Tail(path))
        return reading.sources[(job.seq, datum)]

    def handlers(self) -> Handlers:
        return {"GetLogs": server_stream(self.get_logs, pps.GetLogsRequest)}


def _passes(row: DatumRow, query: _Query) -> bool:
    """Whether a datum's lines are wanted; those of skipped datums only when one is asked for by id."""
    names = {name for f in row.files for name in (f.path, f.path.rstrip("/"), f.hash.hex())}
    wanted = row.state is not DatumState.SKIPPED or bool(query.datum)
    return wanted and all(name in names for name in query.filters)


def _message(source: _Source, line: Line) -> pps.LogMessage:
    return pps.LogMessage(
        project_name=source.job.pipeline.project,
        pipeline_name=source.job.pipeline.name,
        job_id=source.job.id,
        datum_id=source.datum,
        master=not source.datum,
        data=[pps.InputFile(path=f.path, hash=f.hash) for f in source.files],
        user=line.user,
        ts=convert.stamp(line.ts_us),
        message=line.text,
    )
