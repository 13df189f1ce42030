"""Reading the logs that a `GetLogs` asks for, once or on and on. Reference: pachyderm-api.md section 15."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kaos_backend.engine.errors import NotFound
from kaos_backend.engine.jobs.db.rows import DatumRow, Job, JobKey, PipelineKey
from kaos_backend.engine.jobs.queries import Queries
from kaos_backend.engine.jobs.run.logs import Logs, Span, Tail
from kaos_backend.engine.jobs.run.serving import SPOUT
from kaos_backend.engine.jobs.schedule.states import DatumState
from kaos_backend.engine.jobs.spec.plan import File
from kaos_formats import loglines


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which lines: of one job or of the pipeline's, of one datum, of datums whose inputs match every filter
    (a path, or a hash), or with `master` the jobs' own.

    `since_us` is an absolute time in UTC microseconds; `tail` lines of each log at most (0: all) of what
    was there when the reading began.
    """

    pipeline: PipelineKey
    job: JobKey | None
    datum: str = ""
    filters: tuple[str, ...] = ()
    master: bool = False
    since_us: int = 0
    tail: int = 0


@dataclass(slots=True)
class Source:
    """One log file: whose lines it holds. `datum` is "" for a job's own."""

    job: JobKey
    datum: str
    files: Sequence[File]
    tail: Tail


class LogReading:
    """What a query covers, read on from where the last `poll` ended."""

    def __init__(self, queries: Queries, logs: Logs, query: LogQuery) -> None:
        self._queries = queries
        self._logs = logs
        self._query = query
        # Open files by (job, datum), and what nothing is added to any more.
        self._sources: dict[tuple[int, str], Source] = {}
        self._closed: set[tuple[int, str]] = set()
        self._closed_jobs: set[int] = set()
        self._begun = False

    def poll(self) -> tuple[Iterator[tuple[Source, Span]], bool]:
        """Where the lines are that are new, and whether there will never be more (only a job's log ends).

        Raises:
            NotFound: the query's job was deleted.
        """
        sources, ended = self._look()
        return self._spans(sources, ended), ended

    def lines(self, source: Source, span: Span) -> Iterator[loglines.Line]:
        """Those of them that the query is for."""
        for block in source.tail.blocks(span):
            for line in loglines.lines(block.data):
                if line.ts_us >= self._query.since_us:
                    yield line

    def _spans(self, sources: list[Source], ended: bool) -> Iterator[tuple[Source, Span]]:
        query = self._query
        first, self._begun = not self._begun, True
        for source in sources:
            if query.tail > 0 and first:
                source.tail.skip_to_last(query.tail, whole=ended)
            span = source.tail.advance(whole=ended)
            if span.to > span.at:
                yield source, span

    def _look(self) -> tuple[list[Source], bool]:
        """The files that may have new lines, and whether no line will ever be added after these."""
        query, queries = self._query, self._queries
        if query.job is not None:
            jobs = [queries.job(query.job)]
        else:
            try:
                all_jobs = queries.jobs_of(query.pipeline)
            except NotFound:
                all_jobs = []
            jobs = [
                job
                for job in all_jobs
                if job.seq not in self._closed_jobs
                and (job.finished_us is None or job.finished_us >= query.since_us)
            ]
        found: list[Source] = []
        all_quiet = True
        for job in jobs:
            quiet = queries.quiet(job)
            all_quiet &= quiet
            if quiet:
                self._closed_jobs.add(job.seq)
            if query.master:
                found.append(self._open(job, None))
            else:
                found += self._datums(job, quiet)
        if query.job is None and not query.master:
            found += self._spout()
        return found, all_quiet and query.job is not None

    def _spout(self) -> Iterator[Source]:
        """What the command of a spout says, which has no job."""
        pipeline = self._queries.find_pipeline(self._query.pipeline)
        if pipeline is None or pipeline.spec.spout is None or self._query.filters or self._query.datum:
            return
        if (0, SPOUT) not in self._sources:
            key = JobKey(pipeline.key, "")
            self._sources[(0, SPOUT)] = Source(key, SPOUT, (), Tail(self._logs.datum(key, SPOUT)))
        yield self._sources[(0, SPOUT)]

    def _datums(self, job: Job, quiet: bool) -> Iterator[Source]:
        # What runs is looked up before what is done: a datum in between is found done the next time.
        running = {one.datum.id for one in self._queries.running(job)}
        ended = self._queries.ended_datums(job, everything=quiet)
        wanted = ended | running
        if self._query.datum:
            wanted &= {self._query.datum}
        for id in sorted(wanted):
            at = (job.seq, id)
            if at in self._closed:
                continue
            if at not in self._sources:
                row = self._queries.find_datum(job, id)
                if row is None or not _passes(row, self._query):
                    self._closed.add(at)
                    continue
                self._open(job, row)
            yield self._sources[at]
            if id in ended:
                self._closed.add(at)
                del self._sources[at]

    def _open(self, job: Job, row: DatumRow | None) -> Source:
        datum = row.id if row else ""
        if (job.seq, datum) not in self._sources:
            # A skipped datum's lines are those of the job that ran it.
            key = JobKey(job.key.pipeline, row.source) if row else job.key
            path = self._logs.datum(key, datum) if row else self._logs.master(key)
            self._sources[(job.seq, datum)] = Source(key, datum, row.files if row else (), Tail(path))
        return self._sources[(job.seq, datum)]


def _passes(row: DatumRow, query: LogQuery) -> bool:
    """Whether a datum's lines are wanted; those of skipped datums only when one is asked for by id."""
    names = {name for file in row.files for name in file.names}
    wanted = row.state is not DatumState.SKIPPED or bool(query.datum)
    return wanted and all(name in names for name in query.filters)
