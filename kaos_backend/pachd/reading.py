"""What comes by the thousand: files; datums and jobs, many to a message from the embedded engine, and as
Pachyderm lists them elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import TypeVar, cast

from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps

from kaos_backend import errors
from kaos_backend.domain.models import Datum, Job
from kaos_backend.pachd import wire
from kaos_backend.pachd.connection import Connection, read_by_hand
from kaos_formats import kaos_v1

_Answer = TypeVar("_Answer", bound=kaos_v1.Message)


def unary(name: str, request: kaos_v1.Message, answer: type[_Answer]) -> Callable[[Client], _Answer]:
    """A call of the embedded engine's own service."""

    def call(client: Client) -> _Answer:
        method = client._channel.unary_unary(
            kaos_v1.method(name), request_serializer=bytes, response_deserializer=answer.FromString
        )
        return cast(_Answer, method(request))

    return call


def stream(
    name: str, request: kaos_v1.Message, answer: type[_Answer]
) -> Callable[[Client], Iterator[_Answer]]:
    """The same for one that answers with several messages."""

    def call(client: Client) -> Iterator[_Answer]:
        method = client._channel.unary_stream(
            kaos_v1.method(name), request_serializer=bytes, response_deserializer=answer.FromString
        )
        return cast(Iterator[_Answer], method(request))

    return call


def sizes(connection: Connection, commit: pfs.Commit, folder: str) -> Mapping[str, int]:
    """See ``port.Pachd.sizes``."""
    walk = pfs.WalkFileRequest(file=pfs.File(commit=commit, path=folder))
    try:
        found = connection.read(lambda c: list(read_by_hand(c, "/pfs_v2.API/WalkFile", wire.file_size)(walk)))
    except errors.NotFound:
        return {}
    prefix = folder.rstrip("/") + "/"
    return {path.removeprefix(prefix): size for path, size in found if not path.endswith("/")}


def datums(connection: Connection, request: kaos_v1.DatumsRequest) -> list[Datum]:
    """See ``port.Pachd.datums``."""
    call = stream("Datums", request, kaos_v1.DatumsResponse)

    def read(client: Client) -> list[Datum]:
        shared = _Shared()
        return [_datum(told, shared) for part in call(client) for told in part.datums]

    try:
        return connection.read(read)
    except errors.NeedsEmbeddedEngine:
        return _elsewhere(connection, request)


def _elsewhere(connection: Connection, request: kaos_v1.DatumsRequest) -> list[Datum]:
    pipeline = pps.Pipeline(name=request.pipeline, project=pfs.Project(name=request.project))
    listing = pps.ListDatumRequest(job=pps.Job(pipeline=pipeline, id=request.job))
    found = connection.read(lambda c: list(read_by_hand(c, "/pps_v2.API/ListDatum", wire.datum)(listing)))
    return [one for one in found if not request.path or any(request.path == path for _, path in one.inputs)]


def job_counts(
    connection: Connection, pipelines: Collection[str], listed: Callable[[str | None], list[Job]]
) -> Mapping[str, int]:
    """See ``port.Pachd.job_counts``; ``listed`` are the jobs of a project or of all."""
    request = kaos_v1.JobCountsRequest(pipelines=list(pipelines))
    try:
        return connection.read(unary("JobCounts", request, kaos_v1.JobCountsResponse)).jobs
    except errors.NeedsEmbeddedEngine:
        jobs = {(job.project, job.id) for job in listed(None) if job.pipeline in pipelines}
        return Counter(project for project, _ in jobs)


def job_ids(
    connection: Connection,
    project: str,
    pipelines: Collection[str],
    prefix: str,
    listed: Callable[[str | None], list[Job]],
) -> list[str]:
    """See ``port.Pachd.job_ids``; ``listed`` are the jobs of a project, the newest first."""
    request = kaos_v1.JobIdsRequest(project=project, pipelines=list(pipelines), prefix=prefix)
    try:
        return connection.read(unary("JobIds", request, kaos_v1.JobIdsResponse)).ids
    except errors.NeedsEmbeddedEngine:
        ids = dict.fromkeys(job.id for job in listed(project) if job.pipeline in pipelines)
        return [id for id in ids if id.startswith(prefix)]


class _Shared:
    """What is the same for most datums of a grid, in memory once."""

    def __init__(self) -> None:
        self._inputs: dict[tuple[str, str], tuple[str, str]] = {}
        self._texts: dict[str, str] = {}

    def input(self, repo: str, path: str) -> tuple[str, str]:
        return self._inputs.setdefault((repo, path), (repo, path))

    def text(self, value: str) -> str:
        return self._texts.setdefault(value, value)


def _datum(told: kaos_v1.Datum, shared: _Shared) -> Datum:
    return Datum(
        id=told.id,
        job=shared.text(told.job),
        state=wire.datum_state(told.state),
        inputs=tuple([shared.input(one.repo, one.path) for one in told.inputs]),
        seconds=told.process_us / 1e6,
        image=shared.text(told.image),
        ended=told.ended,
        output=told.output,
        bytes=told.size_bytes,
        reason=told.reason,
        started=_moment(told.started_us),
        finished=_moment(told.finished_us),
    )


def _moment(us: int) -> datetime | None:
    return datetime.fromtimestamp(us / 1e6, UTC) if us else None
