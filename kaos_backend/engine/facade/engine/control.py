"""`kaos_v1.Engine`: what users do with jobs and trials, and `pps_v2.API` does not know."""

from __future__ import annotations

import grpc

from kaos_backend.engine.facade.rpc import Handlers, unary, wait_until
from kaos_backend.engine.jobs.db.rows import JobKey, PipelineKey
from kaos_backend.engine.jobs.service import Jobs
from kaos_formats import kaos_v1


class ControlService:
    """The part of the service that is about jobs."""

    name = kaos_v1.SERVICE

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def handlers(self) -> Handlers:
        return {
            "StopDatum": unary(self._stop_datum, kaos_v1.StopDatumRequest),
            "Pause": unary(self._pause, kaos_v1.PauseRequest),
            "Paused": unary(self._paused, kaos_v1.PausedRequest),
            "RerunJob": unary(self._rerun_job, kaos_v1.RerunJobRequest),
            "PutSecret": unary(self._put_secret, kaos_v1.PutSecretRequest),
        }

    def _stop_datum(self, request: kaos_v1.StopDatumRequest, context: grpc.ServicerContext) -> bytes:
        key = JobKey(PipelineKey(request.project, request.pipeline), request.job)

        def stopped() -> bool | None:
            return self._jobs.stop_datums(key, [request.path], request.reason) or None

        wait_until(self._jobs.store, context, stopped)
        return bytes(kaos_v1.Done())

    def _pause(self, request: kaos_v1.PauseRequest, context: grpc.ServicerContext) -> bytes:
        self._jobs.pause(request.project, request.paused)
        return self._paused(kaos_v1.PausedRequest(), context)

    def _paused(self, _request: kaos_v1.PausedRequest, _: grpc.ServicerContext) -> bytes:
        paused = self._jobs.paused()
        return bytes(kaos_v1.PausedResponse(projects=sorted(paused - {""}), everywhere="" in paused))

    def _rerun_job(self, request: kaos_v1.RerunJobRequest, _: grpc.ServicerContext) -> bytes:
        made = self._jobs.rerun_jobs(
            request.project, request.pipelines, request.job, only_failed=request.only_failed
        )
        return bytes(kaos_v1.RerunJobResponse(job=made))

    def _put_secret(self, request: kaos_v1.PutSecretRequest, _: grpc.ServicerContext) -> bytes:
        with self._jobs.store.write() as txn:
            self._jobs.create_secret(txn, request.file, replace=True)
        return bytes(kaos_v1.Done())
