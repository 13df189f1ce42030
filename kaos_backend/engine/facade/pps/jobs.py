"""The job calls of `pps_v2.API`. Reference: pachyderm-api.md sections 12 and 14."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import betterproto
import grpc
from betterproto.lib.google.protobuf import Empty
from pachyderm_sdk.api import pps

from kaos_backend.engine.errors import InvalidArgument, NotFound, Unknown
from kaos_backend.engine.facade.convert import at_most, stamp
from kaos_backend.engine.facade.jq import jq_filter
from kaos_backend.engine.facade.pps import convert
from kaos_backend.engine.facade.rpc import Handlers, server_stream, unary, wait_until
from kaos_backend.engine.facade.transaction import Transactions
from kaos_backend.engine.jobs.db.rows import Job
from kaos_backend.engine.jobs.schedule.states import TERMINAL_JOBS
from kaos_backend.engine.jobs.service import Jobs
from kaos_backend.engine.store.model import CommitKey, RepoKey

_T = TypeVar("_T", bound=betterproto.Message)


class JobCalls:
    """Everything that reads, stops or deletes jobs."""

    def __init__(self, jobs: Jobs, transactions: Transactions) -> None:
        self._jobs = jobs
        self._store = jobs.store
        self._transactions = transactions

    def inspect_job(self, request: pps.InspectJobRequest, context: grpc.ServicerContext) -> pps.JobInfo:
        key = convert.job_key(request.job)
        found = False

        def look() -> Job | None:
            nonlocal found
            job = self._jobs.find_job(key)
            if job is None and found:
                raise Unknown(f"job {key} was deleted")
            if job is None:
                raise NotFound(f"jobs {key} not found")
            found = True
            return job if job.state in TERMINAL_JOBS or not request.wait else None

        job = wait_until(self._store, context, look)
        return self._info(job, request.details)

    def _info(self, job: Job, details: bool) -> pps.JobInfo:
        job = replace(job, reason=self._jobs.reason(job))
        if not details:
            return convert.job_info(job, None, details=False)
        pipeline = self._jobs.find_pipeline(job.key.pipeline, job.version)
        return convert.job_info(job, pipeline, self._jobs.on_workers(job), details=True)

    def inspect_job_set(
        self, request: pps.InspectJobSetRequest, context: grpc.ServicerContext
    ) -> Iterator[pps.JobInfo]:
        set_id = request.job_set.id
        if not set_id:
            raise InvalidArgument("validate request: job_set is needed")
        if request.wait:
            for commit in self._store.set_commits(set_id):
                self._wait_commit(commit.key, context)
        for job in self._jobs.job_set(set_id):
            yield self._info(job, request.details)

    def _wait_commit(self, key: CommitKey, context: grpc.ServicerContext) -> None:
        def finished() -> bool | None:
            commit = self._store.find_commit(key)
            if commit is None:
                raise Unknown(f"commit {key} was deleted")
            return True if commit.finished else None

        wait_until(self._store, context, finished)

    def list_job(self, request: pps.ListJobRequest, _context: grpc.ServicerContext) -> Iterator[pps.JobInfo]:
        key = convert.pipeline_key(request.pipeline) if request.pipeline.name else None
        found = self._jobs.list_jobs(
            key,
            {p.name or "default" for p in request.projects},
            [self._resolve(c) for c in request.input_commit],
            request.history,
        )
        infos = (self._info(job, request.details) for job in _ordered(found, request))
        yield from _wanted(infos, request)

    def _resolve(self, message: Any) -> CommitKey:
        repo = message.repo if message.repo.name else message.branch.repo
        key = RepoKey(repo.project.name or "default", repo.name, repo.type or "user")
        return self._store.resolve_commit(key, message.id or message.branch.name).key

    def list_job_set(
        self, request: pps.ListJobSetRequest, _context: grpc.ServicerContext
    ) -> Iterator[pps.JobSetInfo]:
        projects = {p.name or "default" for p in request.projects}
        sets: dict[str, list[Job]] = {}
        for job in self._jobs.list_jobs():
            sets.setdefault(job.key.id, []).append(job)
        firsts = [
            js[0]
            for js in sets.values()
            if not projects or any(j.key.pipeline.project in projects for j in js)
        ]
        infos = (
            self._set_info(first.key.id, sets[first.key.id], request.details)
            for first in _ordered(firsts, request)
        )
        yield from _wanted(infos, request)

    def _set_info(self, id: str, members: list[Job], details: bool) -> pps.JobSetInfo:
        jobs = [self._info(job, details) for job in self._jobs.upstream_first(id, members)]
        return pps.JobSetInfo(job_set=pps.JobSet(id=id), jobs=jobs)

    def subscribe_job(
        self, request: pps.SubscribeJobRequest, context: grpc.ServicerContext
    ) -> Iterator[pps.JobInfo]:
        key = convert.pipeline_key(request.pipeline)
        known = self._jobs.jobs_of(key)
        seen = known[-1].seq if known else 0
        yield from (self._info(job, request.details) for job in known if job.state not in TERMINAL_JOBS)

        def fresh() -> list[Job] | None:
            return self._jobs.jobs_of(key, after_seq=seen) or None

        while True:
            for job in wait_until(self._store, context, fresh):
                seen = job.seq
                yield self._info(job, request.details)

    def stop_job(self, request: pps.StopJobRequest, context: grpc.ServicerContext) -> Empty:
        key = convert.job_key(request.job)
        request.job = convert.job_message(key)
        self._transactions.call(context, "stop_job", request)
        return Empty()

    def delete_job(self, request: pps.DeleteJobRequest, _context: grpc.ServicerContext) -> Empty:
        with self._store.write() as txn:
            self._jobs.delete_job(txn, convert.job_key(request.job))
        return Empty()

    def handlers(self) -> Handlers:
        return {
            "InspectJob": unary(self.inspect_job, pps.InspectJobRequest),
            "InspectJobSet": server_stream(self.inspect_job_set, pps.InspectJobSetRequest),
            "ListJob": server_stream(self.list_job, pps.ListJobRequest),
            "ListJobSet": server_stream(self.list_job_set, pps.ListJobSetRequest),
            "SubscribeJob": server_stream(self.subscribe_job, pps.SubscribeJobRequest),
            "StopJob": unary(self.stop_job, pps.StopJobRequest),
            "DeleteJob": unary(self.delete_job, pps.DeleteJobRequest),
        }


def _wanted(infos: Iterator[_T], request: Any) -> Iterator[_T]:
    """Those that the request's jq program lets through, at most `number`."""
    with jq_filter(request.jq_filter) as keep:
        yield from itertools.islice(filter(keep, infos), at_most(request.number))


def _ordered(found: list[Job], request: Any) -> Iterable[Job]:
    """Newest first (oldest first with `reverse`), beyond the marker."""
    ordered = found if request.reverse else found[::-1]
    if request.is_set("pagination_marker"):
        marker = request.pagination_marker
        if marker.tzinfo is not None:
            ordered = [
                job
                for job in ordered
                if (stamp(job.created_us) > marker if request.reverse else stamp(job.created_us) < marker)
            ]
    return ordered
