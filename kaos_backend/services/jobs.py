"""Jobs: those of a deploy's stages told as one, and stopping them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from cachetools import LRUCache

from kaos_backend import errors
from kaos_backend.domain import jobs as rules
from kaos_backend.domain.descriptions import rfc3339
from kaos_backend.domain.models import Job, JobState
from kaos_backend.domain.stages import Stage, StageJobs, fold, outcomes, with_jobs
from kaos_backend.pachd.port import Pachd
from kaos_backend.services import inputs, presenters, views
from kaos_backend.services.requests import check_author
from kaos_backend.services.stages import NAMES, STAGES
from kaos_formats import loglines, names
from kaos_formats.endings import detail

_REMEMBERED_JOBS = 256
_NEVER = datetime.min.replace(tzinfo=UTC)


class Jobs:
    """Finding, listing and stopping jobs."""

    def __init__(self, pachd: Pachd, now: Callable[[], datetime]) -> None:
        self._pachd = pachd
        self._now = now
        self._lock = threading.Lock()
        self._inputs: LRUCache[tuple[str, str], inputs.JobInputs] = LRUCache(_REMEMBERED_JOBS)

    def counts(self) -> Mapping[str, int]:
        """How many jobs each workspace has; those without any are not there."""
        return self._pachd.job_counts(NAMES)

    def last(self, workspace: str) -> str | None:
        """The id of the newest job of a workspace."""
        # The newest job of any stage is the newest deploy.
        return next(iter(_by_id(self._newest(workspace, 1))), None)

    def resolve(self, workspace: str, ref: str) -> str:
        """The job id that a full id, a unique prefix or ``last`` names. Raises NoSuchJob, Ambiguous."""
        if names.is_id(ref) and self.of_set(workspace, ref):
            return ref
        if ref == "last":
            last = self.last(workspace)
            return rules.resolve(ref, [last] if last is not None else [])
        return rules.resolve(ref, self._pachd.job_ids(workspace, NAMES, ref))

    def of_set(self, workspace: str, job_id: str) -> list[tuple[Stage, Job]]:
        """The jobs of one deploy with their stages, in the order of these; [] if there are none."""
        return with_jobs(STAGES, self._pachd.job_set(workspace, job_id))

    def newest(self, workspace: str, limit: int | None, after: str | None = None) -> views.Jobs:
        """The newest jobs first, or those behind job ``after``. Raises NoSuchWorkspace, NoSuchJob,
        Ambiguous.
        """
        inputs.require_workspace(self._pachd, workspace)
        before = None if after is None else self._created(workspace, self.resolve(workspace, after))
        listed = _by_id(self._newest(workspace, limit + 1 if limit else 0, before))
        groups = list(listed.items())[:limit]
        reader = inputs.InputReader(self._pachd, workspace, listing=(limit or 0) * len(STAGES))
        told = [(job_id, self._told(workspace, with_jobs(STAGES, jobs))) for job_id, jobs in groups]
        return views.Jobs(
            jobs=[self.summarize(job_id, jobs, reader.of_job(job_id)) for job_id, jobs in told],
            next=groups[-1][0] if len(listed) > len(groups) else None,
        )

    def _created(self, workspace: str, job_id: str) -> datetime | None:
        """When the first of a deploy's jobs was made."""
        return rules.span([job for _, job in self.of_set(workspace, job_id)])[0]

    def _newest(self, workspace: str, number: int, before: datetime | None = None) -> list[Job]:
        """The newest jobs of each of our pipelines (0: all) that were made before some time, newest first;
        others may run here as well.
        """
        found = [job for name in NAMES for job in self._pachd.jobs(workspace, name, number, before)]
        return sorted(found, key=lambda job: job.created or _NEVER, reverse=True)

    def summary(self, workspace: str, job_id: str) -> views.JobSummary:
        """One job's summary; raises NoSuchJob."""
        return self._summary(workspace, job_id, self.of_set(workspace, job_id))

    def look(self, workspace: str, ref: str) -> views.JobSummary:
        """One job's summary, as cheap as can be. Raises NoSuchJob, Ambiguous."""
        # Whoever waits knows the whole id and asks again and again: one call tells that it is one, and all.
        if names.is_id(ref) and (jobs := self.of_set(workspace, ref)):
            return self._summary(workspace, ref, jobs)
        return self.summary(workspace, self.resolve(workspace, ref))

    def _summary(self, workspace: str, job_id: str, jobs: Sequence[tuple[Stage, Job]]) -> views.JobSummary:
        if not jobs:
            raise errors.NoSuchJob(f"no job {job_id!r}", job=job_id)
        return self.summarize(job_id, self.explained(workspace, jobs), self.inputs_of(workspace, job_id))

    def inputs_of(self, workspace: str, job_id: str) -> inputs.JobInputs:
        """What a job was made of, which never changes once it is known: read once, however often one asks."""
        with self._lock:
            known = self._inputs.get((workspace, job_id))
        if known is None:
            known = inputs.InputReader(self._pachd, workspace).of_job(job_id)
            if not known.fetching:
                with self._lock:
                    self._inputs[workspace, job_id] = known
        return known

    def explained(self, workspace: str, jobs: StageJobs) -> list[tuple[Stage, Job]]:
        """``jobs`` as they stand, where that takes one more call: what waits, and why a build failed."""
        found = self._told(workspace, jobs)
        return [(stage, self._with_last_words(workspace, stage, job)) for stage, job in found]

    def _told(self, workspace: str, jobs: StageJobs) -> list[tuple[Stage, Job]]:
        """``explained`` without what takes reading a log."""
        return [(stage, self._tell(workspace, stage, job)) for stage, job in jobs]

    def _tell(self, workspace: str, stage: Stage, job: Job) -> Job:
        if job.state is JobState.RUNNING and job.reason:
            # Planned, and some of it waits; of what runs only the workers know.
            busy = self._pachd.running(workspace, stage.name, job.id)
            return job if busy else replace(job, state=JobState.STARTING)
        if job.state in (JobState.CREATED, JobState.STARTING) and not job.reason:
            # Pachyderm says at the pipeline that its workers do not come up, and nothing at the job.
            pipelines = self._pachd.pipelines(workspace)
            return replace(job, reason=next((p.reason for p in pipelines if p.name == stage.name), ""))
        return job

    def _with_last_words(self, workspace: str, stage: Stage, job: Job) -> Job:
        if job.state is not JobState.FAILURE or stage.trials or detail(job.reason):
            return job
        # Pachyderm's reason names a datum only; what the builder said last names the Dockerfile's line.
        return replace(job, reason=self._last_words(workspace, stage, job.id) or job.reason)

    def _last_words(self, workspace: str, stage: Stage, job_id: str) -> str:
        said = ""
        for block in self._pachd.logs(workspace, stage.name, job_id):
            for line in loglines.lines(block.data):
                if line.user and line.text.strip():
                    said = line.text.strip()
        return said

    def summarize(self, job_id: str, jobs: StageJobs, read: inputs.JobInputs) -> views.JobSummary:
        """The summary of one deploy's jobs and inputs."""
        whole = fold(jobs)
        created, started, finished = rules.span([job for _, job in jobs])
        about = read.descriptions
        source, data, hyper = (about.get(repo) for repo in names.ALWAYS_THERE)
        trials = hyper.trials if hyper else 0
        return views.JobSummary(
            id=job_id,
            state=whole.state,
            reason=whole.reason,
            code=whole.code,
            stages=[
                presenters.stage_job(stage, job, outcome, trials if stage.trials else 1)
                for (stage, job), outcome in zip(jobs, outcomes(jobs), strict=True)
            ],
            created=rfc3339(created),
            started=rfc3339(started),
            finished=rfc3339(finished),
            duration_s=rules.duration_s(created, finished, self._now()),
            source=views.BundleShort(id=source.id, name=source.name) if source else None,
            data=views.BundleShort(id=data.id, name=data.name) if data else None,
            hyper=views.HyperShort(id=hyper.id, trials=hyper.trials) if hyper else None,
        )

    def stop(self, workspace: str, ref: str, author: str) -> views.JobSummary:
        """Stops a job's build and training; one that has ended stays as it is.

        Raises NoSuchWorkspace, NoSuchJob, Ambiguous, InvalidName.
        """
        reason = stopped_by(author)
        inputs.require_workspace(self._pachd, workspace)
        job_id = self.resolve(workspace, ref)
        stop(self._pachd, workspace, self.of_set(workspace, job_id), reason)
        return self.summary(workspace, job_id)

    def pause(self, workspace: str | None, paused: bool) -> views.Paused:
        """Lets nothing new start in a workspace (None: in any), or lets it again; what runs goes on.

        Raises NoSuchWorkspace, NeedsEmbeddedEngine.
        """
        if workspace is not None:
            inputs.require_workspace(self._pachd, workspace)
        now = self._pachd.pause(workspace, paused)
        return views.Paused(everywhere=now.everywhere, workspaces=now.projects)

    def paused(self) -> views.Paused:
        """Where nothing new starts."""
        now = self._pachd.paused()
        return views.Paused(everywhere=now.everywhere, workspaces=now.projects)


def stopped_by(author: str) -> str:
    """The reason of what ``author`` stops. Raises InvalidName."""
    check_author(author)
    return f"stopped by {author or 'the user'}"


def stop(pachd: Pachd, workspace: str, jobs: StageJobs, reason: str) -> None:
    """Stop what is open of one deploy's jobs."""
    # The last stage first: a killed build would make the training unrunnable instead of killed.
    for stage, job in reversed(jobs):
        if not job.state.terminal:
            pachd.stop_job(workspace, stage.name, job.id, reason)


def with_trials(jobs: StageJobs) -> Job | None:
    """The one of a deploy's jobs whose datums are trials, if it has got that far."""
    return next((job for stage, job in jobs if stage.trials), None)


def _by_id(jobs: Sequence[Job]) -> dict[str, list[Job]]:
    """Jobs of our pipelines grouped by deploy, in the order given (newest first)."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        if job.pipeline in NAMES:
            groups.setdefault(job.id, []).append(job)
    return groups
