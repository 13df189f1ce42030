"""The views of what the domain knows: of descriptions, grids, settings, jobs of stages, GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from kaos_backend.domain import deploys, hyperparams, models
from kaos_backend.domain.descriptions import Description, rfc3339
from kaos_backend.domain.models import Job
from kaos_backend.domain.stages import Outcome, Stage, failed
from kaos_backend.services import views
from kaos_formats.masking import mask


def bundle(description: Description | None) -> views.Bundle | None:
    """The view of a source or data commit's description."""
    if description is None or description.kind == "hyper":
        return None
    d = description
    return views.Bundle(
        id=d.id, name=d.name, author=d.author, created=d.created, files=d.files, bytes=d.bytes
    )


def hyper(description: Description | None) -> views.Hyper | None:
    """The view of a hyper commit's description."""
    if description is None or description.kind != "hyper":
        return None
    d = description
    return views.Hyper(id=d.id, trials=d.trials, axes=d.grid or {}, author=d.author, created=d.created)


def grid(found: hyperparams.Grid | None, deployed: Description | None) -> views.Grid | None:
    """The view of a grid; without one, of that which is deployed."""
    if found is None:
        if deployed is None:
            return None
        found = hyperparams.expand(deployed.grid or {})
    return views.Grid(id=found.id, trials=len(found.trials), axes=found.axes, fixed=found.fixed)


def arguments(given: Mapping[str, str]) -> dict[str, str]:
    """The view of build arguments: passwords in URLs are nobody's business."""
    return {name: mask(value) for name, value in given.items()}


def settings(found: deploys.Settings) -> views.Settings:
    """The view of what a job's trials were granted."""
    granted = found.resources
    return views.Settings(
        cpu=granted.cpu,
        memory_bytes=granted.memory,
        gpu=granted.gpu,
        tries=granted.tries,
        timeout_s=granted.timeout_s,
        parallelism=found.parallelism or 1,
    )


def stage_job(stage: Stage, job: Job, outcome: Outcome, expected: int) -> views.StageJob:
    """The view of one stage's job; ``expected``: how many datums it will have."""
    return views.StageJob(
        name=stage.name,
        trials=stage.trials,
        state=outcome.state,
        reason=outcome.reason,
        code=outcome.code,
        total=job.total or expected,
        processed=job.processed,
        skipped=job.skipped,
        failed=failed(job),
        started=rfc3339(job.started),
        finished=rfc3339(job.finished),
    )


def device(found: models.Device) -> views.Device:
    """The view of a GPU."""
    return views.Device(**asdict(found))
