"""From the SDK's protobuf messages to the plain values of the domain."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from pachyderm_sdk.api import pfs, pps, transaction

from kaos_backend.domain.deploys import ANNOTATION
from kaos_backend.domain.descriptions import parse
from kaos_backend.domain.models import (
    Commit,
    Device,
    Job,
    JobState,
    OpenJob,
    Pipeline,
    Queue,
    Repo,
    RunningDatum,
)
from kaos_formats import kaos_v1


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


def open_job(info: pps.JobInfo) -> OpenJob:
    ran = info.data_processed + info.data_failed + info.data_recovered
    return OpenJob(
        project=info.job.pipeline.project.name,
        pipeline=info.job.pipeline.name,
        id=info.job.id,
        total=info.data_total,
        done=ran + info.data_skipped,
        failed=info.data_failed + info.data_recovered,
        ran=ran,
        spent_s=info.stats.process_time.total_seconds(),
    )


def queue(told: kaos_v1.QueueResponse) -> Queue:
    return Queue(tuple(map(_open_job, told.jobs)), tuple(map(_device, told.gpus)))


def _open_job(job: kaos_v1.OpenJob) -> OpenJob:
    ran = job.processed + job.failed + job.recovered
    return OpenJob(
        project=job.project,
        pipeline=job.pipeline,
        id=job.job,
        total=job.total,
        done=ran + job.skipped,
        failed=job.failed + job.recovered,
        ran=ran,
        spent_s=job.process_us / 1e6,
        running=job.running,
        elapsed_s=job.elapsed_us / 1e6,
        at_once=job.at_once,
        usual_s=job.usual_us / 1e6 if job.usual_us else None,
    )


def _device(gpu: kaos_v1.Device) -> Device:
    return Device(gpu.device, gpu.model, gpu.memory_bytes or None, gpu.project, gpu.job, gpu.others)


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


def is_abandoned(info: transaction.TransactionInfo, owner: str, before: datetime) -> bool:
    """Whether an unfinished transaction is of `owner`, or of kaos (or nobody) and begun `before`."""
    old = info.started < before
    if not info.requests:
        return old
    for request in info.requests:
        if request.is_set("start_commit"):
            about = parse(request.start_commit.description)
            if about is not None and (old or about.owner in ("", owner)):
                return True
        if request.is_set("create_pipeline_v2"):
            metadata = request.create_pipeline_v2.create_pipeline_request.metadata
            # A pipeline does not tell who puts it.
            if old and ANNOTATION in metadata.annotations:
                return True
    return False
