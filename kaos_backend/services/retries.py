"""Jobs run once more on the inputs that they had, whatever has been deployed since."""

from __future__ import annotations

from collections.abc import Sequence

from kaos_backend import errors
from kaos_backend.domain.models import Job, JobState
from kaos_backend.domain.stages import Stage, StageJobs, failed
from kaos_backend.pachd.port import Pachd
from kaos_backend.services import inputs, views
from kaos_backend.services.deploys import Deploys
from kaos_backend.services.jobs import Jobs
from kaos_backend.services.requests import Deploy, Retry, check_author
from kaos_formats.names import MASTER


class Retries:
    """The retry use case. A new job does what is missing; what is current stays current."""

    def __init__(self, pachd: Pachd, jobs: Jobs, deploys: Deploys) -> None:
        self._pachd = pachd
        self._jobs = jobs
        self._deploys = deploys

    def retry(self, workspace: str, ref: str, request: Retry) -> views.RetryResult:
        """Starts a new job for what did not succeed in another; finished trials are skipped.

        Raises NoSuchWorkspace, NoSuchJob, Ambiguous, NotYet (it has not ended), ImageMissing;
        NeedsEmbeddedEngine where the job's inputs are not the current ones, or some of its trials never ran
        and shall not run now.
        """
        check_author(request.author)
        inputs.require_workspace(self._pachd, workspace)
        job_id = self._jobs.resolve(workspace, ref)
        jobs = self._jobs.of_set(workspace, job_id)
        if not all(job.state.terminal for _, job in jobs):
            raise errors.NotYet(
                f"job {job_id[:8]} has not ended: there is nothing to retry yet",
                hint=f"`kaos train wait {job_id[:8]}` waits for its end, `kaos train stop` ends it",
            )
        todo = _from_first_broken(jobs)
        if not todo or (request.failed and not _any_failed(todo)):
            return _nothing(job_id, todo)
        stages = [stage.name for stage, _ in todo]
        try:
            made = self._pachd.rerun_job(workspace, stages, job_id, only_failed=request.failed)
        except errors.NeedsEmbeddedEngine:
            return self._deploy_again(workspace, job_id, todo, request)
        except errors.ImageMissing:
            # A deploy of what is current builds it again.
            if self._rest(workspace, job_id, todo[-1], request):
                raise
            return self._deploy_again(workspace, job_id, todo, request)
        return views.RetryResult(job=made, status="started", message="", of=job_id, stages=stages)

    def _deploy_again(
        self, workspace: str, job_id: str, todo: StageJobs, request: Retry
    ) -> views.RetryResult:
        """What any Pachyderm can do: run what is current again."""
        if refusal := self._rest(workspace, job_id, todo[-1], request):
            why, hint = refusal
            raise errors.NeedsEmbeddedEngine(f"this pachd runs {why}", hint=hint)
        answer = self._deploys.deploy(workspace, Deploy(retry=True, author=request.author))
        return views.RetryResult(
            job=answer.job or job_id,
            status="started" if answer.status == "started" else "unchanged",
            message=answer.message,
            of=job_id,
            stages=answer.stages,
        )

    def _rest(
        self, workspace: str, job_id: str, last: tuple[Stage, Job], request: Retry
    ) -> tuple[str, str] | None:
        """What a deploy of what is current would do beside or in place of the retry, and a way out; None if
        it is the same.
        """
        stage, job = last
        if self._pachd.commit(workspace, stage.name, MASTER).id != job_id:
            return f"what is current again, which job {job_id[:8]} is not", "deploy its inputs again"
        if request.failed and job.total - job.processed - job.skipped - failed(job):
            return f"all that is missing again, also what never ran in job {job_id[:8]}", "leave out --failed"
        return None


def _from_first_broken(jobs: StageJobs) -> Sequence[tuple[Stage, Job]]:
    """The first stage without its full result, and what depends on it; [] if there is none."""
    for number, (_, job) in enumerate(jobs):
        if job.state is not JobState.SUCCESS or failed(job):
            return jobs[number:]
    return []


def _any_failed(jobs: StageJobs) -> bool:
    """Whether a datum of theirs failed, and was not only kept from running."""
    return any(failed(job) for _, job in jobs)


def _nothing(job_id: str, todo: StageJobs) -> views.RetryResult:
    why = "none of its trials failed; without --failed those that never ran are run"
    message = why if todo else "every trial of it succeeded"
    return views.RetryResult(job=job_id, status="unchanged", message=message, of=job_id, stages=[])
