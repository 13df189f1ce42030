"""Jobs: a deploy's build and train jobs told as one, and stopping them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from kaos_backend import errors
from kaos_backend.domain import jobs as rules
from kaos_backend.domain.descriptions import rfc3339
from kaos_backend.domain.models import Job, JobState
from kaos_backend.pachd.port import Pachd
from kaos_backend.services import inputs, views
from kaos_formats import names

_PIPELINES = (names.BUILD, names.TRAIN)
_NEVER = datetime.min.replace(tzinfo=UTC)


class Jobs:
    """Finding, listing and stopping jobs."""

    def __init__(self, pachd: Pachd, now: Callable[[], datetime]) -> None:
        self._pachd = pachd
        self._now = now

    def ids(self, workspace: str) -> list[str]:
        """The ids of all jobs of a workspace, newest first."""
        return list(_by_id(self._pachd.jobs(workspace)))

    def counts(self) -> Counter[str]:
        """How many jobs each workspace has."""
        jobs = [job for job in self._pachd.jobs(None) if job.pipeline in _PIPELINES]
        return Counter(project for project, _ in {(job.project, job.id) for job in jobs})

    def resolve(self, workspace: str, ref: str) -> str:
        """The job id that a full id, a unique prefix or ``last`` names. Raises NoSuchJob, Ambiguous."""
        if names.is_id(ref) and self.of_set(workspace, ref):
            return ref
        if ref == "last":
            # The newest job of either pipeline is the newest deploy.
            return rules.resolve(ref, list(_by_id(self._newest(workspace, 1))))
        return rules.resolve(ref, self.ids(workspace))

    def of_set(self, workspace: str, job_id: str) -> list[Job]:
        """The build and train jobs of one deploy; [] if there are none."""
        return [job for job in self._pachd.job_set(workspace, job_id) if job.pipeline in _PIPELINES]

    def newest(self, workspace: str, limit: int | None) -> list[views.JobSummary]:
        """The newest jobs first. Raises NoSuchWorkspace."""
        inputs.require_workspace(self._pachd, workspace)
        groups = list(_by_id(self._newest(workspace, limit or 0)).items())[:limit]
        reader = inputs.InputReader(self._pachd, workspace, listing=(limit or 0) * len(_PIPELINES))
        return [self.summarize(job_id, jobs, reader.of_job(job_id)) for job_id, jobs in groups]

    def _newest(self, workspace: str, number: int) -> list[Job]:
        """The newest jobs of each of our pipelines (0: all), newest first; others may run here as well."""
        found = [job for name in _PIPELINES for job in self._pachd.jobs(workspace, name, number)]
        return sorted(found, key=lambda job: job.created or _NEVER, reverse=True)

    def summary(self, workspace: str, job_id: str) -> views.JobSummary:
        """One job's summary; raises NoSuchJob."""
        jobs = self.of_set(workspace, job_id)
        if not jobs:
            raise errors.NoSuchJob(f"no job {job_id!r}", job=job_id)
        read = inputs.InputReader(self._pachd, workspace).of_job(job_id)
        return self.explained(workspace, job_id, jobs, read)

    def explained(
        self, workspace: str, job_id: str, jobs: Sequence[Job], read: inputs.JobInputs
    ) -> views.JobSummary:
        """As ``summarize``; for a failed build with what the builder said last (one more call)."""
        summary = self.summarize(job_id, jobs, read)
        build, _ = split(jobs)
        if build is None or build.state is not JobState.FAILURE:
            return summary
        # Pachyderm's reason names a datum; what the builder said last names the Dockerfile's line.
        said = self._last_words(workspace, job_id)
        return summary.model_copy(update={"reason": f"the build failed: {said}"}) if said else summary

    def _last_words(self, workspace: str, job_id: str) -> str:
        lines = self._pachd.logs(workspace, names.BUILD, job_id)
        return next((t for line in reversed(list(lines)) if line.user and (t := line.text.strip())), "")

    def summarize(self, job_id: str, jobs: Sequence[Job], read: inputs.JobInputs) -> views.JobSummary:
        """The summary of one deploy's jobs and inputs."""
        build, train = split(jobs)
        outcome = rules.fold(build, train)
        created, started, finished = views.span(jobs)
        about = read.descriptions
        source, data, hyper = (about.get(repo) for repo in names.INPUT_REPOS)
        return views.JobSummary(
            id=job_id,
            state=outcome.state,
            reason=outcome.reason,
            build=views.pipeline_job(build),
            train=views.pipeline_job(train),
            created=rfc3339(created),
            started=rfc3339(started),
            finished=rfc3339(finished),
            duration_s=rules.duration_s(created, finished, self._now()),
            source=views.BundleShort(id=source.id, name=source.name) if source else None,
            data=views.BundleShort(id=data.id, name=data.name) if data else None,
            hyper=views.HyperShort(id=hyper.id, trials=hyper.trials) if hyper else None,
        )

    def stop(self, workspace: str, ref: str) -> views.JobSummary:
        """Stops a job's build and training; one that has ended stays as it is."""
        inputs.require_workspace(self._pachd, workspace)
        job_id = self.resolve(workspace, ref)
        # Training first: a killed build would make it unrunnable instead of killed.
        for job in sorted(self.of_set(workspace, job_id), key=lambda j: j.pipeline, reverse=True):
            if not job.state.terminal:
                self._pachd.stop_job(workspace, job.pipeline, job_id, "stopped by the user")
        return self.summary(workspace, job_id)


def split(jobs: Sequence[Job]) -> tuple[Job | None, Job | None]:
    """(build job, train job) of one deploy."""
    by_pipeline = {job.pipeline: job for job in jobs}
    return by_pipeline.get(names.BUILD), by_pipeline.get(names.TRAIN)


def _by_id(jobs: Sequence[Job]) -> dict[str, list[Job]]:
    """Jobs of our two pipelines grouped by deploy, in the order given (newest first)."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        if job.pipeline in _PIPELINES:
            groups.setdefault(job.id, []).append(job)
    return groups
