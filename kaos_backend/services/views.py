"""What the services answer: plain frozen values, shaped like the HTTP API's bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kaos_backend.domain.descriptions import Description, rfc3339
from kaos_backend.domain.hyperparams import Scalar
from kaos_backend.domain.metrics import Metric, Number
from kaos_backend.domain.models import Job, JobState


@dataclass(frozen=True, slots=True)
class Bundle:
    id: str
    name: str
    author: str
    created: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class UploadedBundle:
    """A bundle with what of it was sent: ``new_files`` files of ``new_bytes`` bytes in all."""

    id: str
    name: str
    author: str
    created: str
    files: int
    bytes: int
    new_files: int
    new_bytes: int


@dataclass(frozen=True, slots=True)
class Hyper:
    id: str
    trials: int
    axes: Mapping[str, Any]
    author: str
    created: str


@dataclass(frozen=True, slots=True)
class BundleShort:
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class HyperShort:
    id: str
    trials: int


@dataclass(frozen=True, slots=True)
class PipelineJob:
    """One pipeline's part of a deploy; ``failed`` counts recovered datums too."""

    state: str
    reason: str
    total: int
    processed: int
    skipped: int
    failed: int
    started: str | None
    finished: str | None


@dataclass(frozen=True, slots=True)
class JobSummary:
    id: str
    state: str
    reason: str
    build: PipelineJob | None
    train: PipelineJob | None
    created: str | None
    started: str | None
    finished: str | None
    duration_s: float | None
    source: BundleShort | None
    data: BundleShort | None
    hyper: HyperShort | None


@dataclass(frozen=True, slots=True)
class Trial:
    trial: int
    model: str
    state: str
    reason: str
    params: Mapping[str, Scalar]
    metrics: Mapping[str, Number]
    started: str | None
    finished: str | None
    duration_s: float | None


@dataclass(frozen=True, slots=True)
class Inputs:
    source: Bundle | None
    data: Bundle | None
    hyper: Hyper | None


@dataclass(frozen=True, slots=True)
class JobDetail:
    summary: JobSummary
    inputs: Inputs
    trials: Sequence[Trial]
    metric: Metric | None
    metrics: Sequence[str]


@dataclass(frozen=True, slots=True)
class WorkspaceShort:
    name: str
    description: str
    created: str | None
    jobs: int


@dataclass(frozen=True, slots=True)
class WorkspaceDetail:
    name: str
    created: str | None
    source: Bundle | None
    data: Bundle | None
    hyper: Hyper | None
    jobs: int
    last_job: JobSummary | None


@dataclass(frozen=True, slots=True)
class GridView:
    id: str
    trials: int
    axes: Mapping[str, Sequence[Scalar]]
    fixed: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class DeployResult:
    job: str | None
    status: str
    message: str
    hint: str
    parts: Sequence[str]
    source: Bundle | None
    data: Bundle | None
    grid: GridView | None
    parallelism: int | None
    builds: bool
    trains: bool


def bundle(description: Description | None) -> Bundle | None:
    """The view of a source or data commit's description."""
    if description is None or description.kind == "hyper":
        return None
    d = description
    return Bundle(d.id, d.name, d.author, d.created, d.files, d.bytes)


def hyper(description: Description | None) -> Hyper | None:
    """The view of a hyper commit's description."""
    if description is None or description.kind != "hyper":
        return None
    d = description
    return Hyper(d.id, d.trials, d.grid or {}, d.author, d.created)


def pipeline_job(job: Job | None) -> PipelineJob | None:
    if job is None:
        return None
    return PipelineJob(
        state=job.state.value,
        reason=job.reason,
        total=job.total,
        processed=job.processed,
        skipped=job.skipped,
        failed=job.failed + job.recovered,
        started=rfc3339(job.started),
        finished=rfc3339(job.finished),
    )


def span(jobs: Sequence[Job]) -> tuple[datetime | None, datetime | None, datetime | None]:
    """(created, started, finished) of several jobs together; finished only when all have ended."""
    created = min((j.created for j in jobs if j.created), default=None)
    started = min((j.started for j in jobs if j.started and j.state is not JobState.CREATED), default=None)
    done = all(j.state.terminal for j in jobs)
    finished = max((j.finished for j in jobs if j.finished), default=None) if done else None
    return created, started, finished
