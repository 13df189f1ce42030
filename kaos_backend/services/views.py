"""What the services answer, which is what the HTTP API sends: the one definition of each answer.

The field names are the contract with the CLI (docs/api.md). Times are RFC 3339 in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from kaos_backend.domain.deploys import Status
from kaos_backend.domain.jobs import TrialState
from kaos_backend.domain.metrics import Metric, NonFinite, Number
from kaos_backend.domain.stages import StageState, State
from kaos_formats.grids import Scalar

# Of the bodies, not of the program: raised when a field changes its meaning.
FORMAT: Literal[1] = 1


class View(BaseModel):
    """A frozen value that knows its JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Answer(View):
    """A whole body; what is nested in one carries no version of its own."""

    version: Literal[1] = FORMAT


class Bundle(View):
    id: str
    name: str
    author: str
    created: str
    files: int
    bytes: int


class BundleAnswer(Answer, Bundle):
    pass


class UploadedBundle(Answer, Bundle):
    """A bundle with what of it was new: ``new_files`` files of ``new_bytes`` bytes in all. ``known``: it was
    there.
    """

    new_files: int
    new_bytes: int
    known: bool


class Version(Bundle):
    """A version of code or data; ``jobs`` were made of it, the newest first."""

    current: bool
    jobs: Sequence[str]


class Versions(Answer):
    versions: Sequence[Version]


class Removed(Answer):
    """What was removed, or with ``dry_run`` would be: ids of jobs, newest first, and of versions."""

    jobs: Sequence[str]
    source: Sequence[str]
    data: Sequence[str]
    dry_run: bool


class Hyper(View):
    id: str
    trials: int
    axes: Mapping[str, Any]
    author: str
    created: str


class BundleShort(View):
    id: str
    name: str


class HyperShort(View):
    id: str
    trials: int


class StageJob(View):
    """One stage's part of a deploy; ``trials``: what is counted are trials.

    ``code`` names the end of one that did not succeed (``kaos_formats.endings``). ``failed`` counts recovered
    datums too, ``total`` is what is expected as long as Pachyderm has not planned the job.
    """

    name: str
    trials: bool
    state: StageState
    reason: str
    code: str
    total: int
    processed: int
    skipped: int
    failed: int
    started: str | None
    finished: str | None


class ActiveJob(View):
    """A job that has not ended. ``total``, ``done`` (``failed`` among them) and ``running`` count trials.

    ``waits_for``: what its reason says, by stable names (``domain.queue``). ``left_s``: how long it is likely
    to take from now on, None where nothing like it has run yet.
    """

    workspace: str
    id: str
    state: State
    reason: str
    waits_for: Sequence[str]
    created: str | None
    total: int
    done: int
    failed: int
    running: int
    left_s: float | None


class Device(View):
    """A GPU, and who is on it: a job, or ``others``, in words."""

    device: str
    model: str
    memory_bytes: int | None
    workspace: str
    job: str
    others: str


class Queue(View):
    """``devices`` is None where the server does not tell."""

    jobs: Sequence[ActiveJob]
    devices: Sequence[Device] | None


class JobSummary(View):
    id: str
    state: State
    reason: str
    code: str
    stages: Sequence[StageJob]
    created: str | None
    started: str | None
    finished: str | None
    duration_s: float | None
    source: BundleShort | None
    data: BundleShort | None
    hyper: HyperShort | None


class Jobs(Answer):
    """``next``: the job after which the next page begins, None behind the last one."""

    jobs: list[JobSummary]
    next: str | None


class Trial(View):
    trial: int
    model: str
    state: TrialState
    reason: str
    code: str
    # Concrete types: there may be ten thousand, and of others pydantic goes through each by itself.
    params: dict[str, Scalar]
    metrics: dict[str, Number | NonFinite]
    notes: list[str]
    started: str | None
    duration_s: float | None
    image: str | None


class TrialAnswer(Answer, Trial):
    job: str


class Failure(View):
    """The trials that failed alike, by their numbers; ``reason`` is that of the first of them."""

    code: str
    reason: str
    trials: Sequence[int]


class TrialNote(View):
    """What of a trial's metrics could not be read, in words."""

    trial: int
    note: str


class Settings(View):
    """What each trial of a job is granted, and how many run at a time: cores, bytes (None: no limit), GPUs,
    how often it is run until it succeeds, seconds for each time (None: no limit).
    """

    cpu: float
    memory_bytes: int | None
    gpu: int
    tries: int
    timeout_s: float | None
    parallelism: int


class Inputs(View):
    """``data`` has no id before the fetch of what ``manifest`` names has succeeded."""

    source: Bundle | None
    data: Bundle | None
    manifest: Bundle | None
    hyper: Hyper | None


class JobAnswer(Answer, JobSummary):
    pass


class JobDetail(Answer, JobSummary):
    """``trials`` are the first of ``count``; ``varied``: the parameters that tell all of them apart;
    ``notes``: the first of ``noted``.
    """

    inputs: Inputs
    settings: Settings | None
    build_args: Mapping[str, str]
    build_secrets: Sequence[str]
    trials: list[Trial]
    count: int
    varied: list[str]
    notes: list[TrialNote]
    noted: int
    failures: Sequence[Failure]
    metric: Metric | None
    metrics: Sequence[str]


class Trials(Answer):
    """Some of a job's trials, in order of their numbers; ``count`` is how many it has in all.

    ``next``: the trial after which the next page begins, None behind the last one. ``revision``: what
    ``since`` takes to be told only of what came later.
    """

    job: str
    state: State
    count: int
    revision: int
    trials: list[Trial]
    next: int | None


class Workspace(View):
    name: str
    description: str
    created: str | None
    jobs: int


class WorkspaceAnswer(Answer, Workspace):
    pass


class Workspaces(Answer):
    workspaces: Sequence[Workspace]


class WorkspaceDetail(Answer):
    name: str
    created: str | None
    source: Bundle | None
    data: Bundle | None
    manifest: Bundle | None
    hyper: Hyper | None
    jobs: int
    last_job: JobSummary | None


class WorkspaceDeleted(Answer):
    jobs: int
    deleted: Literal[True] = True


class Grid(View):
    id: str
    trials: int
    axes: Mapping[str, Sequence[Scalar]]
    fixed: Mapping[str, Scalar]


class DeployResult(Answer):
    job: str | None
    status: Status
    message: str
    hint: str
    parts: Sequence[str]
    source: Bundle | None
    data: Bundle | None
    manifest: Bundle | None
    grid: Grid | None
    stages: Sequence[str]
    parallelism: int | None
    build_args: Mapping[str, str]
    build_secrets: Sequence[str]


class Paused(View):
    """Where nothing new starts: in ``workspaces``, or ``everywhere``."""

    everywhere: bool
    workspaces: Sequence[str]


class PausedAnswer(Answer, Paused):
    pass


class Exported(Answer):
    """How far files of a bundle called ``name`` are written."""

    name: str
    files: int
    bytes: int
    end: bool = False


class Room(Answer):
    """``missing_bytes``: of the objects that were asked about."""

    free_bytes: int
    total_bytes: int
    missing_bytes: int


class Missing(Answer):
    """``missing``: the contents that must be sent. ``begun``: of those that broke off within, how many bytes
    are there; what follows is enough.
    """

    missing: list[str]
    begun: dict[str, int]


class Typed(Answer):
    ok: bool


class RetryResult(Answer):
    """``job``: the new one, or the one asked about (``of``) when there is nothing to run."""

    job: str
    status: Literal["started", "unchanged"]
    message: str
    of: str
    stages: Sequence[str]


class DiskShare(View):
    """Bytes of the disk: what was put in, what jobs made, images with their environments and layers, inputs
    laid out for trials, logs, and all of these.
    """

    data: int
    models: int
    images: int
    inputs: int
    logs: int
    total: int


class DiskUse(Answer):
    """``workspaces``: what each has for itself alone; ``shared`` is what several have, ``can_go`` what nobody
    needs. Each byte is counted once; ``total`` is all, with the ``database``.
    """

    workspaces: dict[str, DiskShare]
    shared: DiskShare
    can_go: DiskShare
    database: int
    total: int
