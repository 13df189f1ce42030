"""The schema of pipelines, jobs and datums, and its rows as frozen values."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from kaos_backend.engine.jobs.schedule.states import DatumState, JobState, PipelineState
from kaos_backend.engine.jobs.spec.plan import File
from kaos_backend.engine.jobs.spec.spec import Spec, from_json

_INITIAL = """
CREATE TABLE pps_pipelines (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    stopped INTEGER NOT NULL DEFAULT 0,
    state INTEGER NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    metadata TEXT NOT NULL DEFAULT '{}',
    created_us INTEGER NOT NULL,
    UNIQUE (project, name)
);
CREATE TABLE pps_versions (
    pipeline INTEGER NOT NULL REFERENCES pps_pipelines(id) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    spec_commit TEXT NOT NULL,
    spec TEXT NOT NULL,
    user_json TEXT NOT NULL,
    effective_json TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    PRIMARY KEY (pipeline, version)
) WITHOUT ROWID;
-- seq is the order of creation, in which the jobs of one pipeline run.
CREATE TABLE pps_jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    pipeline INTEGER NOT NULL REFERENCES pps_pipelines(id) ON DELETE CASCADE,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    state INTEGER NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    restart INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0,
    processed INTEGER NOT NULL DEFAULT 0,
    skipped INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    recovered INTEGER NOT NULL DEFAULT 0,
    process_us INTEGER NOT NULL DEFAULT 0,
    download_bytes INTEGER NOT NULL DEFAULT 0,
    upload_bytes INTEGER NOT NULL DEFAULT 0,
    created_us INTEGER NOT NULL,
    started_us INTEGER,
    finished_us INTEGER,
    UNIQUE (pipeline, id)
);
CREATE INDEX pps_jobs_by_id ON pps_jobs (id);
CREATE INDEX pps_jobs_open ON pps_jobs (pipeline, seq) WHERE finished_us IS NULL;
-- A row per datum of every job, written when the job starts.
-- job: pps_jobs.seq; source: id of the job that ran it.
CREATE TABLE pps_datums (
    job INTEGER NOT NULL REFERENCES pps_jobs(seq) ON DELETE CASCADE,
    id BLOB NOT NULL,
    hash BLOB NOT NULL,
    position INTEGER NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    source TEXT NOT NULL,
    root BLOB,
    reason TEXT NOT NULL DEFAULT '',
    tries INTEGER NOT NULL DEFAULT 0,
    process_us INTEGER NOT NULL DEFAULT 0,
    download_bytes INTEGER NOT NULL DEFAULT 0,
    upload_bytes INTEGER NOT NULL DEFAULT 0,
    started_us INTEGER,
    finished_us INTEGER,
    files BLOB NOT NULL,
    PRIMARY KEY (job, id)
);
CREATE INDEX pps_datums_kept ON pps_datums (id, hash) WHERE state IN (2, 3);
-- project '' holds the cluster's.
CREATE TABLE pps_defaults (
    project TEXT PRIMARY KEY,
    json TEXT NOT NULL,
    created_us INTEGER NOT NULL
) WITHOUT ROWID;
"""

# Ended after its job did: the job does not have it, later ones may take it over.
_LATE = "ALTER TABLE pps_datums ADD COLUMN late INTEGER NOT NULL DEFAULT 0;"

# `keys`: what a secret's values are called; the values themselves are in `sealed`, encrypted (`db.secrets`).
_SECRETS = """
CREATE TABLE pps_secrets (
    name TEXT PRIMARY KEY,
    type TEXT NOT NULL,
    keys TEXT NOT NULL,
    sealed BLOB NOT NULL,
    created_us INTEGER NOT NULL
) WITHOUT ROWID;
"""

# pps_jobs.seq of an earlier job with the same inputs: of its datums only those are run that failed there.
_FAILED_OF = "ALTER TABLE pps_jobs ADD COLUMN failed_of INTEGER;"

# Where nothing new starts; project NULL: everywhere.
_PAUSED = """
CREATE TABLE pps_paused (
    project INTEGER UNIQUE REFERENCES projects(id) ON DELETE CASCADE,
    since_us INTEGER NOT NULL
);
"""

# By digest, what a datum ran in; "" where its runtime knows none.
_IMAGE = "ALTER TABLE pps_datums ADD COLUMN image TEXT NOT NULL DEFAULT '';"

# How many of the job's datums had ended when this one had: what came since a number is what is above it.
_ENDED = "ALTER TABLE pps_datums ADD COLUMN ended INTEGER;"

MIGRATIONS: tuple[tuple[str, str], ...] = (
    ("jobs-1", _INITIAL),
    ("jobs-2-late", _LATE),
    ("jobs-3-secrets", _SECRETS),
    ("jobs-4-failed-of", _FAILED_OF),
    ("jobs-5-paused", _PAUSED),
    ("jobs-6-image", _IMAGE),
    ("jobs-7-ended", _ENDED),
)


@dataclass(frozen=True, slots=True)
class PipelineKey:
    project: str
    name: str

    def __str__(self) -> str:
        return f"{self.project}/{self.name}"


@dataclass(frozen=True, slots=True)
class JobKey:
    pipeline: PipelineKey
    id: str

    def __str__(self) -> str:
        return f"{self.pipeline}@{self.id}"


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One version of a pipeline; `state`, `reason`, `stopped`, `latest` are the pipeline's. Times in µs."""

    row: int
    key: PipelineKey
    version: int
    latest: int
    stopped: bool
    state: PipelineState
    reason: str
    metadata: Mapping[str, str]
    created_us: int
    updated_us: int
    spec_commit: str
    spec: Spec
    user_json: str
    effective_json: str


@dataclass(frozen=True, slots=True)
class Job:
    """Times in µs; counters are of datums. `failed_of`: the `seq` of the job whose failed datums alone it
    runs; None: it runs all that is left to do.
    """

    seq: int
    key: JobKey
    pipeline_row: int
    version: int
    state: JobState
    reason: str
    restart: int
    total: int
    processed: int
    skipped: int
    failed: int
    recovered: int
    process_us: int
    download_bytes: int
    upload_bytes: int
    created_us: int
    started_us: int | None
    finished_us: int | None
    failed_of: int | None


class DatumRow(msgspec.Struct, frozen=True):
    """A datum of one job; `source` is the job that ran it, `root` its output tree (None: empty), `image` what
    it ran in, by digest ("": its pipeline's image, of which no more is known). `ended`: the how many-th of
    its job's to end, None before that and where nobody noted it.
    """

    id: str
    hash: str
    position: int
    state: DatumState
    source: str
    root: bytes | None
    reason: str
    tries: int
    process_us: int
    download_bytes: int
    upload_bytes: int
    started_us: int | None
    finished_us: int | None
    files: tuple[File, ...]
    image: str = ""
    ended: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """How a datum ended, as it is written down."""

    state: DatumState
    root: bytes | None
    reason: str = ""
    tries: int = 1
    process_us: int = 0
    upload_bytes: int = 0
    started_us: int | None = None
    finished_us: int | None = None
    image: str = ""


def pipeline_of(row: sqlite3.Row) -> Pipeline:
    return Pipeline(
        row=row["id"],
        key=PipelineKey(row["project"], row["name"]),
        version=row["version"],
        latest=row["latest"],
        stopped=bool(row["stopped"]),
        state=PipelineState(row["state"]),
        reason=row["reason"],
        metadata=json.loads(row["metadata"]),
        created_us=row["created_us"],
        updated_us=row["updated_us"],
        spec_commit=row["spec_commit"],
        spec=from_json(row["spec"]),
        user_json=row["user_json"],
        effective_json=row["effective_json"],
    )


def job_of(row: sqlite3.Row) -> Job:
    return Job(
        seq=row["seq"],
        key=JobKey(PipelineKey(row["project"], row["name"]), row["id"]),
        pipeline_row=row["pipeline"],
        version=row["version"],
        state=JobState(row["state"]),
        reason=row["reason"],
        restart=row["restart"],
        total=row["total"],
        processed=row["processed"],
        skipped=row["skipped"],
        failed=row["failed"],
        recovered=row["recovered"],
        process_us=row["process_us"],
        download_bytes=row["download_bytes"],
        upload_bytes=row["upload_bytes"],
        created_us=row["created_us"],
        started_us=row["started_us"],
        finished_us=row["finished_us"],
        failed_of=row["failed_of"],
    )


def datum_of(row: sqlite3.Row) -> DatumRow:
    return DatumRow(
        id=row["id"].hex(),
        hash=row["hash"].hex(),
        position=row["position"],
        state=DatumState.UNKNOWN if row["late"] else DatumState(row["state"]),
        source=row["source"],
        root=row["root"],
        reason=row["reason"],
        tries=row["tries"],
        process_us=row["process_us"],
        download_bytes=row["download_bytes"],
        upload_bytes=row["upload_bytes"],
        started_us=row["started_us"],
        finished_us=row["finished_us"],
        files=msgspec.msgpack.decode(row["files"], type=tuple[File, ...]),
        image=row["image"],
        ended=row["ended"],
    )
