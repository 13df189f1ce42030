"""`kaos_v1.Engine`: datums and jobs in the forms that cost what is shown."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import grpc

from kaos_backend.engine.facade.rpc import Handlers, server_stream, unary
from kaos_backend.engine.jobs.db.rows import DatumRow, JobKey, PipelineKey
from kaos_backend.engine.jobs.service import Jobs
from kaos_formats import kaos_v1

# Some 400 bytes each: well below what a message may have.
_TOGETHER = 1000


class ReadingService:
    """The part of the service that is about what jobs have done."""

    name = kaos_v1.SERVICE

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def handlers(self) -> Handlers:
        return {
            "Datums": server_stream(self._datums, kaos_v1.DatumsRequest),
            "JobCounts": unary(self._counts, kaos_v1.JobCountsRequest),
            "JobIds": unary(self._ids, kaos_v1.JobIdsRequest),
        }

    def _datums(self, request: kaos_v1.DatumsRequest, _: grpc.ServicerContext) -> Iterator[bytes]:
        job = self._jobs.job(JobKey(PipelineKey(request.project, request.pipeline), request.job))
        image = self._jobs.image(job)
        ended = self._jobs.each_ended(job, request.since, request.path)
        answers: list[bytes] = []
        while datums := [_datum(row, image) for row in itertools.islice(ended, _TOGETHER)]:
            answers.append(bytes(kaos_v1.DatumsResponse(datums=datums)))
        # However slow the client is, nothing is read any more.
        yield from answers

    def _counts(self, request: kaos_v1.JobCountsRequest, _: grpc.ServicerContext) -> bytes:
        return bytes(kaos_v1.JobCountsResponse(jobs=self._jobs.job_counts(request.pipelines)))

    def _ids(self, request: kaos_v1.JobIdsRequest, _: grpc.ServicerContext) -> bytes:
        ids = self._jobs.job_ids(request.project, request.pipelines, request.prefix)
        return bytes(kaos_v1.JobIdsResponse(ids=ids))


def _datum(row: DatumRow, image: str) -> kaos_v1.Datum:
    return kaos_v1.Datum(
        id=row.id,
        job=row.source,
        state=int(row.state),
        inputs=[kaos_v1.InputPath(repo=file.repo, path=file.path) for file in row.files],
        ended=row.ended or 0,
        process_us=row.process_us,
        started_us=row.started_us or 0,
        finished_us=row.finished_us or 0,
        size_bytes=row.upload_bytes,
        output="" if row.root is None else row.root.hex(),
        image=row.image or image,
        reason=row.reason,
    )
