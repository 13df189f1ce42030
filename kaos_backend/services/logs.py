"""Logs of a job: stage by stage, those of the trials one after another, each line with where it is from."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from kaos_backend import errors
from kaos_backend.domain.models import DatumState, Job, JobState, LogBlock
from kaos_backend.domain.stages import Stage, fold, outcomes
from kaos_backend.pachd.port import LogStream, Pachd
from kaos_backend.services import inputs
from kaos_backend.services.jobs import Jobs, with_trials
from kaos_backend.services.reasons import Reasons
from kaos_backend.services.stages import NAMES, STAGES
from kaos_backend.services.trials import TrialDatum, Trials, numbered, params_of_paths, standing
from kaos_formats import loglines, names


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which lines: of one ``trial`` (number), of one ``stage``, or all; ``tail`` of each of them."""

    trial: int | None = None
    stage: str | None = None
    follow: bool = False
    tail: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of the log of a stage (by its name) or of a trial, as ``loglines`` has them: those that
    begin from its byte ``at`` on and before ``to``, which are None where nobody knows.
    """

    stage: str
    trial: int | None
    model: str | None
    at: int | None
    to: int | None
    data: bytes


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is followed has nothing to say yet, and what it waits for."""

    reason: str


@dataclass(frozen=True, slots=True)
class End:
    """What closes every log: where that of which it is stands now, a trial, a stage or the job, and why."""

    state: str
    reason: str
    trial: TrialEnd | None = None


@dataclass(frozen=True, slots=True)
class TrialEnd:
    """Where the trial that was asked for stands."""

    state: str
    reason: str


class Logs:
    """Reading logs before, during and after a run."""

    def __init__(self, pachd: Pachd, jobs: Jobs, trials: Trials, reasons: Reasons) -> None:
        self._pachd = pachd
        self._jobs = jobs
        self._trials = trials
        self._reasons = reasons

    def open(self, workspace: str, ref: str, query: LogQuery) -> LogReading:
        """A reading of a job's log. Raises NoSuchWorkspace, NoSuchJob, Ambiguous, NotFound (no such
        trial).
        """
        inputs.require_workspace(self._pachd, workspace)
        job_id = self._jobs.resolve(workspace, ref)
        read = self._jobs.inputs_of(workspace, job_id)
        reading = LogReading(
            self._pachd, self._jobs, self._trials, self._reasons, workspace, job_id, read, query
        )
        reading.check()
        return reading


class LogReading:
    """Iterates over blocks of lines and ends with an End; who follows is told first what is waited for.

    ``close`` from another thread ends a follow.
    """

    def __init__(
        self,
        pachd: Pachd,
        jobs: Jobs,
        trials: Trials,
        reasons: Reasons,
        workspace: str,
        job_id: str,
        read: inputs.JobInputs,
        query: LogQuery,
    ) -> None:
        self._pachd = pachd
        self._jobs = jobs
        self._trials_service = trials
        self._reasons = reasons
        self._workspace = workspace
        self._job_id = job_id
        self._read = read
        self._query = query
        self._guard = threading.Lock()
        self._closed = False
        self._stream: LogStream | None = None
        self._known: dict[str, TrialDatum] = {}
        self._ended: Sequence[TrialDatum] | None = None

    def check(self) -> None:
        """Raises NotFound if the query names a stage that there is not, or a trial that the job has not."""
        query = self._query
        if query.stage is not None and query.stage not in NAMES:
            raise errors.NotFound(f"no stage {query.stage!r}", hint=f"the stages are {', '.join(NAMES)}")
        if query.trial is None:
            return
        train = with_trials(self._jobs_of_set())
        numbered(self._job_id, self._trials(train) if train is not None else [], query.trial)

    def close(self) -> None:
        """Ends the iteration soon, from any thread."""
        with self._guard:
            self._closed = True
            stream = self._stream
        if stream is not None:
            stream.close()

    def __iter__(self) -> Iterator[Block | Waiting | End]:
        query = self._query
        if query.follow:
            yield from self._waiting()
        for stage in STAGES:
            if self._closed or query.stage not in (None, stage.name):
                continue
            if stage.trials:
                yield from self._trial_blocks(stage)
            elif query.trial is None:
                yield from self._stage_blocks(stage)
        yield self._end()

    def _waiting(self) -> Iterator[Waiting]:
        now = self._end()
        about = now.trial or now
        if about.state == "waiting":
            yield Waiting(about.reason)

    def _end(self) -> End:
        """Raises NoSuchJob: it was removed, by itself or with its workspace, while it was read."""
        found = self._jobs_of_set()
        if not found:
            raise errors.NoSuchJob(
                f"job {self._job_id[:8]} was removed meanwhile",
                hint="`kaos train list` shows the jobs of this workspace",
                job=self._job_id,
            )
        jobs = self._jobs.explained(self._workspace, found)
        whole = fold(jobs)
        ended = End(whole.state, whole.reason)
        for (stage, job), outcome in zip(jobs, outcomes(jobs), strict=True):
            # Who asked for one stage alone wants to know how that ended.
            if stage.name == self._query.stage:
                ended = End(outcome.state, outcome.reason)
            if stage.trials and self._query.trial is not None:
                trial = self._trials(job)[self._query.trial]
                trial_state, why = standing(trial, job, outcome)
                if trial_state == "failed" and trial.datum is not None:
                    why = self._reasons.why_failed(self._workspace, job.id, trial.datum)
                ended = replace(ended, trial=TrialEnd(trial_state, why))
        return ended

    def _stage_blocks(self, stage: Stage) -> Iterator[Block]:
        job = dict(self._by_stage()).get(stage.name)
        # A job without a build of its own used an older one's image; that log is shown when asked for.
        older = self._read.commits.get(stage.name) if self._query.stage else None
        job_id = job.id if job is not None else older
        if job_id is None:
            return
        follow = self._query.follow and job is not None and not job.state.terminal
        for block in self._blocks(stage.name, job_id, follow=follow, tail=self._query.tail):
            if block.data:
                yield Block(stage.name, None, None, block.at, block.to, block.data)

    def _trial_blocks(self, stage: Stage) -> Iterator[Block]:
        train = dict(self._by_stage()).get(stage.name)
        if train is None:
            return
        if self._query.trial is not None:
            yield from self._one_trial(train, self._query.trial)
        elif train.state.terminal:
            yield from self._finished(train)
        elif self._query.follow:
            yield from self._follow(train)
        else:
            yield from self._so_far(train)

    def _one_trial(self, train: Job, number: int) -> Iterator[Block]:
        """One trial's lines, whatever the others have said."""
        trial = self._trials(train)[number]
        query = self._query
        if trial.datum is not None and trial.datum.state is DatumState.SKIPPED and trial.datum.job:
            blocks = self._blocks(train.pipeline, trial.datum.job, datum_id=trial.datum.id, tail=query.tail)
        else:
            # By the file that no other trial reads: a datum that has not ended is listed by no id.
            path = names.params_path(trial.point.params_id)
            follow = query.follow and not train.state.terminal
            blocks = self._blocks(train.pipeline, train.id, path=path, follow=follow, tail=query.tail)
        for block in blocks:
            yield _of_trial(train, trial, block)

    def _finished(self, train: Job) -> Iterator[Block]:
        """Trial by trial, in order of their numbers."""
        trials = self._trials(train)
        for trial in trials:
            if trial.datum is None:
                continue
            if self._closed:
                return
            skipped = trial.datum.state is DatumState.SKIPPED
            job_id = trial.datum.job if skipped and trial.datum.job else train.id
            for block in self._blocks(train.pipeline, job_id, datum_id=trial.datum.id, tail=self._query.tail):
                yield _of_trial(train, trial, block)
        if train.state is not JobState.SUCCESS:
            # A job that was stopped lists no datums for what it interrupted, but has their lines.
            listed = {trial.datum.id for trial in trials if trial.datum is not None}
            yield from self._so_far(train, without=listed)

    def _so_far(self, train: Job, without: Collection[str] = ()) -> Iterator[Block]:
        """What a job's trials have said up to now, one trial after another."""
        of: str | None = None
        last = _Last(self._query.tail)
        for block in self._blocks(train.pipeline, train.id, tail=self._query.tail):
            if block.datum in without:
                continue
            if block.datum != of or not self._query.tail:
                yield from last.taken()
                of = block.datum
            last.add(self._known_block(train, block))
        yield from last.taken()

    def _follow(self, train: Job) -> Iterator[Block]:
        """All trials as their lines come; with ``tail``, of what is there already only the last lines."""
        blocks = iter(self._blocks(train.pipeline, train.id, follow=True, tail=self._query.tail))
        if self._query.tail:
            last = _Last(self._query.tail)
            for block in takewhile(lambda block: block.data, blocks):
                last.add(self._known_block(train, block))
            yield from last.taken()
        for block in blocks:
            yield self._known_block(train, block)

    def _known_block(self, train: Job, block: LogBlock) -> Block:
        return _of_trial(train, self._trial_of(train, block), block)

    def _blocks(
        self,
        pipeline: str,
        job_id: str,
        *,
        datum_id: str = "",
        path: str = "",
        follow: bool = False,
        tail: int = 0,
    ) -> Iterator[LogBlock]:
        stream = self._pachd.logs(
            self._workspace, pipeline, job_id, datum_id=datum_id, path=path, follow=follow, tail=tail
        )
        with self._guard:
            if self._closed:
                return
            self._stream = stream
        yield from stream

    def _jobs_of_set(self) -> list[tuple[Stage, Job]]:
        return self._jobs.of_set(self._workspace, self._job_id)

    def _by_stage(self) -> Iterator[tuple[str, Job]]:
        return ((stage.name, job) for stage, job in self._jobs_of_set())

    def _trials(self, train: Job) -> Sequence[TrialDatum]:
        if self._ended is not None:
            return self._ended
        if self._read.fetching:
            self._read = self._jobs.inputs_of(self._workspace, self._job_id)
        found = self._trials_service.of_job(self._workspace, train, self._read)
        if train.state.terminal:
            self._ended = found
        return found

    def _trial_of(self, train: Job, block: LogBlock) -> TrialDatum | None:
        if not self._known:
            self._known = {t.point.params_id: t for t in self._trials(train)}
        params_id = params_of_paths(block.paths)
        return self._known.get(params_id) if params_id is not None else None


class _Last:
    """The last ``count`` lines of what is added; 0: all of them, which are to be taken one by one."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._blocks: deque[tuple[int, Block]] = deque()
        self._lines = 0

    def add(self, block: Block) -> None:
        lines = block.data.count(b"\n")
        self._blocks.append((lines, block))
        self._lines += lines
        while self._count and self._lines - self._blocks[0][0] >= self._count:
            self._lines -= self._blocks.popleft()[0]

    def taken(self) -> Iterator[Block]:
        """The lines, which are not here any more then."""
        over, self._lines = self._lines - self._count, 0
        while self._blocks:
            lines, block = self._blocks.popleft()
            if self._count and over > 0:
                data, over = loglines.last(block.data, lines - over), 0
                at = None if block.at is None else block.at + len(block.data) - len(data)
                block = replace(block, at=at, data=data)
            yield block


def _of_trial(train: Job, trial: TrialDatum | None, block: LogBlock) -> Block:
    number, model = (trial.point.number, trial.model) if trial is not None else (None, None)
    return Block(train.pipeline, number, model, block.at, block.to, block.data)
