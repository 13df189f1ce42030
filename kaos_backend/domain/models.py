"""The values that pass between services and the Pachyderm port: frozen, plain, without protobuf. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec


class JobState(StrEnum):
    """Pachyderm's job states (``JOB_…`` in lower case)."""

    UNKNOWN = "unknown"
    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    FAILURE = "failure"
    SUCCESS = "success"
    KILLED = "killed"
    EGRESSING = "egressing"
    FINISHING = "finishing"
    UNRUNNABLE = "unrunnable"

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL


_TERMINAL = frozenset({JobState.FAILURE, JobState.SUCCESS, JobState.KILLED, JobState.UNRUNNABLE})


class DatumState(StrEnum):
    """Pachyderm's datum states in lower case; ``unknown`` is one that has not been started."""

    UNKNOWN = "unknown"
    FAILED = "failed"
    SUCCESS = "success"
    SKIPPED = "skipped"
    STARTING = "starting"
    RECOVERED = "recovered"


@dataclass(frozen=True, slots=True)
class Project:
    name: str
    description: str
    created: datetime | None


@dataclass(frozen=True, slots=True)
class Repo:
    """A user repo with the names of its branches."""

    project: str
    name: str
    branches: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit. ``finished`` is None while it is open; ``provenance`` maps repo name → commit id (direct,
    user repos only); ``parent`` is the parent's id or "".
    """

    repo: str
    id: str
    description: str
    parent: str
    error: str
    started: datetime | None
    finished: datetime | None
    provenance: Mapping[str, str] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        return self.finished is None


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline's current version: ``spec`` is the CreatePipelineRequest as JSON, in the server's
    spelling.
    """

    name: str
    version: int
    stopped: bool
    state: str
    reason: str
    spec: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """One pipeline's job in a commit set. Counters are disjoint, as in Pachyderm."""

    project: str
    pipeline: str
    id: str
    state: JobState
    reason: str
    total: int
    processed: int
    skipped: int
    failed: int
    recovered: int
    created: datetime | None
    started: datetime | None
    finished: datetime | None


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job that has not ended, as far as it is: datums by number, seconds of processing.

    ``ran`` counts those done that were not skipped, which took ``spent_s`` together; ``running`` are on a
    worker now, since ``elapsed_s`` together; ``at_once``: how many would run beside each other.
    ``usual_s``: what one took in an earlier job, None where nobody knows.
    """

    project: str
    pipeline: str
    id: str
    total: int
    done: int
    failed: int
    ran: int
    spent_s: float
    running: int = 0
    elapsed_s: float = 0.0
    at_once: int = 1
    usual_s: float | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU and who is on it: a job (``workspace`` and ``job``), or programs of others, in words."""

    device: str
    model: str
    memory_bytes: int | None
    workspace: str
    job: str
    others: str


@dataclass(frozen=True, slots=True)
class Queue:
    """What runs and waits: jobs in order of creation; None for GPUs where the server does not tell."""

    jobs: tuple[OpenJob, ...]
    devices: tuple[Device, ...] | None


class Datum(msgspec.Struct, frozen=True):
    """One datum of a job. ``job`` names the job that ran it (an older one if it was skipped);
    ``inputs`` lists (repo, path); ``seconds`` is its processing time, None before it ended;
    ``image`` what it ran in, by digest where that is known.

    Only the embedded engine tells the rest: ``ended``, the how many-th it was to end, from 1 (0: nobody
    knows); ``output``, a name for the content that it wrote; ``bytes``, how much that is; ``reason``, why it
    failed; when a worker began with it and was done.
    """

    id: str
    job: str
    state: DatumState
    inputs: tuple[tuple[str, str], ...]
    seconds: float | None
    image: str = ""
    ended: int = 0
    output: str = ""
    bytes: int | None = None
    reason: str = ""
    started: datetime | None = None
    finished: datetime | None = None


@dataclass(frozen=True, slots=True)
class RunningDatum:
    """A datum that a worker is at right now: the paths of its files and when it was started."""

    paths: tuple[str, ...]
    started: datetime | None


@dataclass(frozen=True, slots=True)
class LogBlock:
    """Whole lines of one log, as ``loglines`` has them: those that begin from its byte ``at`` on and before
    ``to``, which are None where nobody knows. ``paths`` are the files of the datum that they belong to.
    """

    datum: str
    paths: tuple[str, ...]
    at: int | None
    to: int | None
    data: bytes


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the Pachyderm at the other end says about itself; ``id`` and ``metadata`` are InspectCluster's."""

    address: str
    id: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AddFile:
    """Append ``data`` to the file at ``path`` (made if missing)."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class DeleteFile:
    """Remove the file at ``path``, or with a trailing ``/`` the folder; nothing there is no error."""

    path: str


@dataclass(frozen=True, slots=True)
class CopyFile:
    """Put ``src`` of another commit at ``dst`` by reference, replacing what is there."""

    dst: str
    src_repo: str
    src_commit: str
    src: str


FileOp = AddFile | DeleteFile | CopyFile


@dataclass(frozen=True, slots=True)
class StartCommit:
    """Open a commit on ``branch`` of ``repo``; see ``port.Pachd.transact_at_once`` for its ``changes``."""

    repo: str
    branch: str
    description: str
    changes: Sequence[FileOp] | None = None


@dataclass(frozen=True, slots=True)
class Staged:
    """A branch of ``repo`` and the commit that is its head."""

    repo: str
    branch: str
    commit: str


@dataclass(frozen=True, slots=True)
class PutPipeline:
    """Create or update a pipeline; ``spec`` is a CreatePipelineRequest as JSON.

    ``reprocess``: what it did for the same inputs is done again.
    """

    spec: Mapping[str, Any]
    reprocess: bool = False
