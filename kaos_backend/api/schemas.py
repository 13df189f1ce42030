"""Bodies of the HTTP API. Pydantic only; the field names are the contract with the CLI (docs/api.md)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

# Of the bodies, not of the program: raised when a field changes its meaning.
FORMAT: Literal[1] = 1

Scalar = str | int | float | bool | None
Number = int | float


class _Model(BaseModel):
    model_config = ConfigDict(from_attributes=True, strict=False, extra="forbid")


class Answer(_Model):
    """A whole body; what is nested in one carries no version of its own."""

    version: Literal[1] = FORMAT


class Error(_Model):
    code: str
    message: str
    hint: str
    fields: dict[str, Any]


class ErrorBody(Answer):
    error: Error


class Health(Answer):
    kaos_version: str
    pid: int
    ok: bool


class EngineStatus(_Model):
    kind: Literal["embedded", "remote"]
    address: str


class RuntimeStatus(_Model):
    name: str
    isolation: str
    notes: list[str]


class MachineStatus(_Model):
    cpus: float | None
    memory_bytes: int | None
    gpus: int | None


class StoreStatus(_Model):
    free_bytes: int | None


class Status(Answer):
    kaos_version: str
    pid: int
    url: str
    home: str
    engine: EngineStatus
    runtime: RuntimeStatus
    machine: MachineStatus
    store: StoreStatus


class Environment(Answer):
    env: dict[str, str]


class Bundle(_Model):
    id: str
    name: str
    author: str
    created: str
    files: int
    bytes: int


class BundleAnswer(Answer, Bundle):
    pass


class UploadedBundle(Answer, Bundle):
    new_files: int
    new_bytes: int


class Hyper(_Model):
    id: str
    trials: int
    axes: dict[str, Any]
    author: str
    created: str


class BundleShort(_Model):
    id: str
    name: str


class HyperShort(_Model):
    id: str
    trials: int


class PipelineJob(_Model):
    state: str
    reason: str
    total: int
    processed: int
    skipped: int
    failed: int
    started: str | None
    finished: str | None


class JobSummary(_Model):
    id: str
    state: Literal["building", "training", "queued", "success", "partial", "failed", "killed"]
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


class Jobs(Answer):
    jobs: list[JobSummary]


class Trial(_Model):
    trial: int
    model: str
    state: Literal["waiting", "running", "success", "skipped", "failed"]
    reason: str
    params: dict[str, Scalar]
    metrics: dict[str, Number]
    started: str | None
    finished: str | None
    duration_s: float | None


class Inputs(_Model):
    source: Bundle | None
    data: Bundle | None
    hyper: Hyper | None


class Metric(_Model):
    name: str
    order: Literal["asc", "desc"]
    guessed: bool


class JobAnswer(Answer, JobSummary):
    pass


class JobDetail(Answer, JobSummary):
    inputs: Inputs
    trials: list[Trial]
    metric: Metric | None
    metrics: list[str]


class Workspace(_Model):
    name: str
    description: str
    created: str | None
    jobs: int


class Workspaces(Answer):
    workspaces: list[Workspace]


class WorkspaceAnswer(Answer, Workspace):
    pass


class WorkspaceCreate(_Model):
    name: str
    description: str = ""


class WorkspaceDeleted(Answer):
    jobs: int
    deleted: bool


class WorkspaceDetail(Answer):
    name: str
    created: str | None
    source: Bundle | None
    data: Bundle | None
    hyper: Hyper | None
    jobs: int
    last_job: JobSummary | None


class Resources(_Model):
    cpu: float | None = None
    memory: str | None = None
    gpu: int | None = None


class Deploy(_Model):
    source: str | None = None
    data: str | None = None
    hyper: Any = None
    parallelism: int | None = None
    resources: Resources | None = None
    author: str = ""
    retry: bool = False


class Grid(_Model):
    id: str
    trials: int
    axes: dict[str, list[Scalar]]
    fixed: dict[str, Scalar]


class DeployResult(Answer):
    job: str | None
    status: Literal["started", "unchanged", "waiting"]
    message: str
    hint: str
    parts: list[str]
    source: Bundle | None
    data: Bundle | None
    grid: Grid | None
    parallelism: int | None
    builds: bool
    trains: bool
