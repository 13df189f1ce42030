"""`kaos_v1.Engine`: what runs and waits on this machine, and what room there is."""

from __future__ import annotations

import grpc

from kaos_backend.engine.facade.rpc import Handlers, unary
from kaos_backend.engine.gpus import Inventory
from kaos_backend.engine.jobs.db.rows import Job, Pipeline
from kaos_backend.engine.jobs.schedule.admission import capacity
from kaos_backend.engine.jobs.schedule.machine import request_of
from kaos_backend.engine.jobs.service import Jobs
from kaos_formats import kaos_v1


class QueueService:
    """The part of the service that is about the machine. `gpus` are those that its `jobs` are handed."""

    name = kaos_v1.SERVICE

    def __init__(self, jobs: Jobs, gpus: Inventory) -> None:
        self._jobs = jobs
        self._gpus = gpus

    def handlers(self) -> Handlers:
        return {
            "Queue": unary(self._queue, kaos_v1.QueueRequest),
            "Room": unary(self._room, kaos_v1.RoomRequest),
        }

    def _room(self, request: kaos_v1.RoomRequest, _: grpc.ServicerContext) -> bytes:
        missing = self._jobs.store.missing_bytes(dict(zip(request.objects, request.sizes, strict=False)))
        free, total = self._jobs.inputs.make_room(request.wanted)
        return bytes(kaos_v1.RoomResponse(free=free, total=total, missing=missing))

    def _queue(self, _request: kaos_v1.QueueRequest, _: grpc.ServicerContext) -> bytes:
        jobs = [self._open_job(job, pipeline, usual) for job, pipeline, usual in self._jobs.open_jobs()]
        return bytes(kaos_v1.QueueResponse(jobs=jobs, gpus=self._devices()))

    def _open_job(self, job: Job, pipeline: Pipeline, usual_us: int) -> kaos_v1.OpenJob:
        running, now_us = self._jobs.on_workers(job), self._jobs.clock()
        spec = pipeline.spec
        return kaos_v1.OpenJob(
            project=job.key.pipeline.project,
            pipeline=job.key.pipeline.name,
            job=job.key.id,
            total=job.total,
            processed=job.processed,
            skipped=job.skipped,
            failed=job.failed,
            recovered=job.recovered,
            running=len(running),
            at_once=capacity(self._jobs.machine, request_of(spec), spec.parallelism),
            process_us=job.process_us,
            elapsed_us=sum(max(0, now_us - one.started_us) for one in running),
            usual_us=usual_us,
        )

    def _devices(self) -> list[kaos_v1.Device]:
        held = {gpu: one.party for one in self._jobs.admission.holdings() for gpu in one.allocation.gpus}
        others = self._gpus.others(frozenset(held))
        found = []
        for index, gpu in enumerate(self._gpus.gpus):
            party = held.get(index)
            found.append(
                kaos_v1.Device(
                    device=gpu.device,
                    model=gpu.model,
                    memory_bytes=gpu.memory_bytes or 0,
                    project=party.workspace if party else "",
                    pipeline=party.pipeline if party else "",
                    job=party.job if party else "",
                    others=others.get(index, ""),
                )
            )
        return found
