"""Rows of the jobs layer ↔ messages of `pps_v2`. No decisions are made here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import cache, lru_cache
from typing import Any

from pachyderm_sdk.api import pfs, pps

from kaos_backend.engine.errors import InvalidArgument, Unknown
from kaos_backend.engine.facade import wire
from kaos_backend.engine.facade.convert import stamp
from kaos_backend.engine.jobs.db.rows import DatumRow, Job, JobKey, Pipeline, PipelineKey
from kaos_backend.engine.jobs.run.forward import HOST
from kaos_backend.engine.jobs.run.progress import Running
from kaos_backend.engine.jobs.schedule.states import DatumState, JobState, PipelineState
from kaos_backend.engine.jobs.spec.plan import Datum, File
from kaos_formats.protobuf import field, number, text

_ANCESTRY = re.compile(r"(.+?)(?:(\^+|~+)|[\^~]([0-9]{1,18})|\.([0-9]{1,18}))")
_SHARED_FILES = 64
# Fields of CreatePipelineRequest that the details of a job / of a pipeline repeat under the same name.
_JOB_FIELDS = [
    "transform",
    "parallelism_spec",
    "egress",
    "service",
    "spout",
    "resource_requests",
    "resource_limits",
    "sidecar_resource_limits",
    "sidecar_resource_requests",
    "salt",
    "datum_set_spec",
    "datum_timeout",
    "job_timeout",
    "datum_tries",
    "scheduling_spec",
    "pod_spec",
    "pod_patch",
]
_PIPELINE_FIELDS = [
    *_JOB_FIELDS,
    *[
        "output_branch",
        "description",
        "s3_out",
        "metadata",
        "reprocess_spec",
        "autoscaling",
        "tolerations",
        "input",
    ],
]


def pipeline_key(message: pps.Pipeline, what: str = "pipeline") -> PipelineKey:
    """InvalidArgument for an empty name, as the validation of pachd."""
    if not message.name:
        raise InvalidArgument(f"validate request: {what}: a name of at least 1 character is needed")
    return PipelineKey(message.project.name or "default", message.name)


def job_key(message: pps.Job) -> JobKey:
    """The address of a job; InvalidArgument without pipeline or id."""
    if not message.id and not message.pipeline.name:
        raise Unknown("must specify a job")
    return JobKey(pipeline_key(message.pipeline, "job.pipeline"), message.id)


def ancestry(name: str) -> tuple[str, int, int | None]:
    """`p^2` → (p, 2 versions back, None); `p.3` → (p, 0, version 3)."""
    found = _ANCESTRY.fullmatch(name)
    if not found:
        return name, 0, None
    base, marks, count, version = found.groups()
    if version:
        return base, 0, int(version)
    return base, len(marks) if marks else int(count), None


def pipeline_message(key: PipelineKey) -> pps.Pipeline:
    return pps.Pipeline(project=pfs.Project(name=key.project), name=key.name)


def job_message(key: JobKey) -> pps.Job:
    return pps.Job(pipeline=pipeline_message(key.pipeline), id=key.id)


def commit_message(project: str, repo: str, type: str, id: str) -> pfs.Commit:
    return pfs.Commit(repo=pfs.Repo(name=repo, type=type, project=pfs.Project(name=project)), id=id)


def request_message(spec: dict[str, Any]) -> pps.CreatePipelineRequest:
    """The proto form of a spec in JSON. Raises InvalidArgument for values that it cannot hold."""
    try:
        message: pps.CreatePipelineRequest = pps.CreatePipelineRequest().from_dict(spec)
        bytes(message)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InvalidArgument(f"could not make effective spec: {error}") from None
    return message


def request_dict(message: pps.CreatePipelineRequest) -> dict[str, Any]:
    """The JSON form of a proto spec, as the SDK writes it."""
    return dict(message.to_dict())


def _spec_message(pipeline: Pipeline) -> pps.CreatePipelineRequest:
    import msgspec

    return request_message(json.loads(msgspec.json.encode(pipeline.spec)))


def pipeline_info(
    pipeline: Pipeline, last_job: JobState | None, *, details: bool, workers: int = 0
) -> pps.PipelineInfo:
    """`workers`: how many are up now."""
    key = pipeline.key
    info = pps.PipelineInfo(
        pipeline=pipeline_message(key),
        version=pipeline.version,
        spec_commit=commit_message(key.project, key.name, "spec", pipeline.spec_commit),
        stopped=pipeline.stopped,
        state=pps.PipelineState(int(pipeline.state)),
        reason=pipeline.reason,
        last_job_state=pps.JobState(int(last_job or 0)),
        parallelism=pipeline.spec.parallelism,
        type=_type(pipeline),
        user_spec_json=pipeline.user_json,
        effective_spec_json=pipeline.effective_json,
        metadata=dict(pipeline.metadata),
    )
    if details:
        spec = _spec_message(pipeline)
        info.details = pps.PipelineInfoDetails(
            created_at=stamp(pipeline.created_us),
            updated_at=stamp(pipeline.updated_us),
            workers_requested=pipeline.spec.parallelism,
            workers_available=workers if pipeline.state is PipelineState.RUNNING else 0,
            reason=pipeline.reason,
            **_set_fields(spec, _PIPELINE_FIELDS),
        )
        if pipeline.spec.service is not None:
            info.details.service.ip = HOST
    return info


def _type(pipeline: Pipeline) -> pps.PipelineInfoPipelineType:
    if pipeline.spec.spout is not None:
        return pps.PipelineInfoPipelineType.PIPELINE_TYPE_SPOUT
    if pipeline.spec.service is not None:
        return pps.PipelineInfoPipelineType.PIPELINE_TYPE_SERVICE
    return pps.PipelineInfoPipelineType.PIPELINE_TYPE_TRANSFORM


def _set_fields(spec: pps.CreatePipelineRequest, names: Iterable[str]) -> dict[str, Any]:
    """The fields that are on the wire; reading an unset sub-message would make an empty one."""
    return {name: getattr(spec, name) for name in names if spec.is_set(name) or _scalar(spec, name)}


def _scalar(spec: pps.CreatePipelineRequest, name: str) -> bool:
    return isinstance(getattr(spec, name), (str, int, float, bool))


def job_info(
    job: Job, pipeline: Pipeline | None, running: Sequence[Running] = (), *, details: bool
) -> pps.JobInfo:
    """`pipeline` is the version that the job runs; needed for `details`."""
    key = job.key
    info = pps.JobInfo(
        job=job_message(key),
        pipeline_version=job.version,
        output_commit=commit_message(key.pipeline.project, key.pipeline.name, "user", key.id),
        restart=job.restart,
        data_processed=job.processed,
        data_skipped=job.skipped,
        data_total=job.total,
        data_failed=job.failed,
        data_recovered=job.recovered,
        stats=_stats(job.process_us, job.download_bytes, job.upload_bytes),
        state=pps.JobState(int(job.state)),
        reason=job.reason,
        created=stamp(job.created_us),
    )
    if job.started_us is not None:
        info.started = stamp(job.started_us)
    if job.finished_us is not None:
        info.finished = stamp(job.finished_us)
    if details and pipeline is not None:
        spec = _spec_message(pipeline)
        info.details = pps.JobInfoDetails(**_set_fields(spec, _JOB_FIELDS))
        if spec.is_set("input"):
            info.details.input = _with_commit(spec.input, key.id)
        if job.state is JobState.RUNNING:
            info.details.worker_status = [_worker_status(key, r) for r in running]
    return info


def _with_commit(node: pps.Input, id: str) -> pps.Input:
    """In a job's details every input names the job's commit set."""
    if node.is_set("pfs"):
        node.pfs.commit = id
    if node.cron.name:  # by now it "is set" whatever it is
        node.cron.commit = id
    for arm in ("join", "group", "cross", "union"):
        for child in getattr(node, arm):
            _with_commit(child, id)
    return node


def _worker_status(key: JobKey, running: Running) -> pps.WorkerStatus:
    return pps.WorkerStatus(
        worker_id=running.datum.id,
        job_id=key.id,
        datum_status=pps.DatumStatus(
            started=stamp(running.started_us),
            data=[pps.InputFile(path=f.path, hash=f.hash) for f in running.datum.files],
        ),
    )


def _stats(process_us: int, download: int, upload: int) -> pps.ProcessStats:
    return pps.ProcessStats(
        process_time=timedelta(microseconds=process_us), download_bytes=download, upload_bytes=upload
    )


def datum_info_encoder(job: Job, image: str) -> Callable[[DatumRow], bytes]:
    """A function that encodes a `DatumInfo` of a job that has ended one way or the other.

    By hand: a job may have ten thousand, and the SDK's classes take milliseconds for each.
    DatumInfo{datum 1, state 2, stats 3, pfs_state 4, data 5, image_id 6}, Datum{job 1, id 2},
    File{commit 1, path 2}, ProcessStats{process_time 2, download_bytes 4, upload_bytes 5}.
    """
    pipeline = job.key.pipeline
    job_part = field(1, bytes(job_message(job.key)))
    meta = field(1, bytes(commit_message(pipeline.project, pipeline.name, "meta", job.key.id)))
    data = _data_encoder()

    def encode(datum: DatumRow) -> bytes:
        stats = (
            field(2, wire.microseconds(datum.process_us)),
            number(4, datum.download_bytes),
            number(5, datum.upload_bytes),
        )
        return b"".join(
            (
                field(1, job_part + text(2, datum.id)),
                number(2, int(datum.state)),
                field(3, b"".join(stats)),
                field(4, meta + text(2, f"/pfs/{datum.id}")),
                *map(data, datum.files),
                text(6, datum.image or image),
            )
        )

    return encode


def planned_datum_info_encoder() -> Callable[[Datum], bytes]:
    """A function that encodes the `DatumInfo` of a dry enumeration's datums."""
    data = _data_encoder()

    def encode(datum: Datum) -> bytes:
        state = number(2, int(DatumState.UNKNOWN))
        return b"".join((field(1, text(2, datum.id)), state, *map(data, datum.files)))

    return encode


def _data_encoder() -> Callable[[File], bytes]:
    """A function that encodes the field `data` of `DatumInfo`; what all datums of a grid read, once."""
    commit = cache(lambda *address: bytes(commit_message(*address)))

    @lru_cache(_SHARED_FILES)
    def data(file: File) -> bytes:
        where = commit(file.project, file.repo, file.repo_type, file.commit)
        return field(
            5, wire.file_info(where, file.path, "default", file.is_dir, b"", file.size_bytes, file.hash)
        )

    return data
