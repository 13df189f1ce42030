"""What runs and what waits on the machine, over all workspaces."""

from __future__ import annotations

from kaos_backend.domain.descriptions import rfc3339
from kaos_backend.domain.jobs import span
from kaos_backend.domain.models import OpenJob
from kaos_backend.domain.queue import is_held, left_s, waits_for
from kaos_backend.domain.stages import fold
from kaos_backend.pachd.port import Pachd
from kaos_backend.services import presenters, views
from kaos_backend.services.jobs import Jobs
from kaos_backend.services.stages import NAMES
from kaos_formats import names

# (workspace, pipeline) → until when it is busy with older jobs: seconds from now, None where nobody knows.
_Free = dict[tuple[str, str], float | None]


class Queue:
    """The jobs that have not ended, with what they wait for and how long they will take."""

    def __init__(self, pachd: Pachd, jobs: Jobs) -> None:
        self._pachd = pachd
        self._jobs = jobs

    def look(self) -> views.Queue:
        """As it is now; the oldest job first."""
        found = self._pachd.queue()
        deploys: dict[tuple[str, str], dict[str, OpenJob]] = {}
        for job in found.jobs:
            if job.pipeline in NAMES:
                deploys.setdefault((job.project, job.id), {})[job.pipeline] = job
        free: _Free = {}
        rows = [self._row(workspace, job_id, jobs, free) for (workspace, job_id), jobs in deploys.items()]
        devices = None if found.devices is None else [presenters.device(one) for one in found.devices]
        return views.Queue(jobs=[row for row in rows if row is not None], devices=devices)

    def _row(
        self,
        workspace: str,
        job_id: str,
        unfinished: dict[str, OpenJob],
        free: dict[tuple[str, str], float | None],
    ) -> views.ActiveJob | None:
        jobs = self._jobs.explained(workspace, self._jobs.of_set(workspace, job_id))
        if not jobs or all(job.state.terminal for _, job in jobs):
            return None  # it has ended meanwhile
        about = self._jobs.inputs_of(workspace, job_id).descriptions.get(names.HYPER)
        trials = about.trials if about is not None else 0
        whole = fold(jobs)
        waits = waits_for(whole.reason)
        left: float | None = None if is_held(waits) else 0.0
        for stage, _ in jobs:
            job = unfinished.get(stage.name)
            if job is None:
                continue
            begins = _later(left, free.get((workspace, stage.name), 0.0))
            takes = left_s(job, trials if stage.trials else 1)
            left = None if begins is None or takes is None else begins + takes
            free[workspace, stage.name] = left
        counted = next((unfinished.get(stage.name) for stage, _ in jobs if stage.trials), None)
        created, _, _ = span([job for _, job in jobs])
        return views.ActiveJob(
            workspace=workspace,
            id=job_id,
            state=whole.state,
            reason=whole.reason,
            waits_for=waits,
            created=rfc3339(created),
            total=(counted.total if counted else 0) or trials,
            done=counted.done if counted else 0,
            failed=counted.failed if counted else 0,
            running=counted.running if counted else 0,
            left_s=left,
        )


def _later(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else max(one, other)
