"""From the SDK's protobuf messages to the plain values of the domain."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from pachyderm_sdk.api import pfs, pps

from kaos_backend.domain.models import (
    Commit,
    Job,
    JobState,
    Pipeline,
    Repo,
    RunningDatum,
)


def moment(value: datetime) -> datetime | None:
    """An unset protobuf timestamp reads as the epoch; nothing of ours is that old."""
    return value if value.timestamp() > 0 else None


def commit(info: pfs.CommitInfo) -> Commit:
    provenance = {c.repo.name: c.id for c in info.direct_provenance if c.repo.type == "user"}
    return Commit(
        repo=info.commit.repo.name,
        id=info.commit.id,
        description=info.description,
        parent=info.parent_commit.id,
        error=info.error,
        started=moment(info.started),
        finished=moment(info.finished),
        provenance=provenance,
    )


def repo(info: pfs.RepoInfo) -> Repo:
    return Repo(info.repo.project.name, info.repo.name, tuple(branch.name for branch in info.branches))


def job(info: pps.JobInfo) -> Job:
    return Job(
        project=info.job.pipeline.project.name,
        pipeline=info.job.pipeline.name,
        id=info.job.id,
        state=_job_state(info.state),
        reason=info.reason,
        total=info.data_total,
        processed=info.data_processed,
        skipped=info.data_skipped,
        failed=info.data_failed,
        recovered=info.data_recovered,
        created=moment(info.created),
        started=moment(info.started),
        finished=moment(info.finished),
    )


def pipeline(info: pps.PipelineInfo) -> Pipeline:
    return Pipeline(
        name=info.pipeline.name,
        version=info.version,
        stopped=info.stopped,
        state=_lower(pps.PipelineState, info.state, "PIPELINE_"),
        reason=info.reason,
        spec=_spec(info.user_spec_json),
    )


def running_datum(status: pps.WorkerStatus) -> RunningDatum:
    at = status.datum_status
    return RunningDatum(tuple(file.path for file in at.data), moment(at.started))


def _job_state(value: int) -> JobState:
    return JobState(_lower(pps.JobState, value, "JOB_").removeprefix("state_"))


def _lower(enum: Any, value: int, prefix: str) -> str:
    try:
        return str(enum(value).name).removeprefix(prefix).lower()
    except ValueError:
        return "unknown"


def _spec(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
