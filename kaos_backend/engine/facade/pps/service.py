"""`pps_v2.API`: pipelines and defaults. Reference: pachyderm-api.md sections 10 and 14."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
from betterproto.lib.google.protobuf import Empty
from pachyderm_sdk.api import pfs, pps, transaction

from kaos_backend.engine.errors import Unimplemented
from kaos_backend.engine.facade.convert import page_of
from kaos_backend.engine.facade.jq import jq_filter
from kaos_backend.engine.facade.pps import convert
from kaos_backend.engine.facade.pps.datums import DatumCalls
from kaos_backend.engine.facade.pps.jobs import JobCalls
from kaos_backend.engine.facade.pps.logs import LogCalls
from kaos_backend.engine.facade.pps.secrets import SecretCalls
from kaos_backend.engine.facade.rpc import Handlers, server_stream, unary
from kaos_backend.engine.facade.transaction import Runner, Transactions
from kaos_backend.engine.jobs.db.pipelines import CreatePipeline
from kaos_backend.engine.jobs.db.rows import Pipeline, PipelineKey
from kaos_backend.engine.jobs.schedule.states import JobState, PipelineState
from kaos_backend.engine.jobs.service import Jobs
from kaos_backend.engine.jobs.spec.spec import parse, parse_json
from kaos_backend.engine.store.store import Txn

Context = grpc.ServicerContext
_BAD_ENDS = (JobState.FAILURE, JobState.KILLED, JobState.UNRUNNABLE)


def runners(jobs: Jobs) -> dict[str, Runner]:
    """What a transaction runs for the arms of `TransactionRequest` that belong to PPS."""

    def create(txn: Txn, part: pps.CreatePipelineTransaction) -> transaction.TransactionResponse:
        message = part.create_pipeline_request
        if part.effective_json:
            user = json.loads(part.user_json or part.effective_json)
            creation = CreatePipeline(
                user, json.loads(part.effective_json), message.update, message.reprocess
            )
        else:
            user = parse_json(part.user_json) if part.user_json else convert.request_dict(message)
            creation = jobs.with_defaults(txn, user, update=message.update, reprocess=message.reprocess)
        jobs.create_pipeline(txn, creation)
        return transaction.TransactionResponse()

    def stop(txn: Txn, request: pps.StopJobRequest) -> transaction.TransactionResponse:
        jobs.stop_job(txn, convert.job_key(request.job), request.reason)
        return transaction.TransactionResponse()

    return {"create_pipeline_v2": create, "stop_job": stop}


class PpsService:
    """The service object that the server registers."""

    name = "pps_v2.API"

    def __init__(self, jobs: Jobs, transactions: Transactions, own_log: Path) -> None:
        self._jobs = jobs
        self._store = jobs.store
        self._transactions = transactions
        self._job_calls = JobCalls(jobs, transactions)
        self._datum_calls = DatumCalls(jobs)
        self._log_calls = LogCalls(jobs, own_log)
        self._secret_calls = SecretCalls(jobs)

    # --- creating

    def create_pipeline(self, request: pps.CreatePipelineRequest, context: Context) -> Empty:
        creation = self._jobs.with_defaults(
            None, convert.request_dict(request), update=request.update, reprocess=request.reprocess
        )
        self._create(creation, request.dry_run, context)
        return Empty()

    def create_pipeline_v2(
        self, request: pps.CreatePipelineV2Request, context: Context
    ) -> pps.CreatePipelineV2Response:
        user = parse_json(request.create_pipeline_request_json)
        creation = self._jobs.with_defaults(None, user, update=request.update, reprocess=request.reprocess)
        self._create(creation, request.dry_run, context)
        return pps.CreatePipelineV2Response(
            effective_create_pipeline_request_json=json.dumps(creation.effective)
        )

    def _create(self, creation: CreatePipeline, dry_run: bool, context: Context) -> None:
        parse(creation.effective)  # says which field does not fit, which betterproto does not
        message = convert.request_message(creation.effective)
        message.update, message.reprocess = creation.update, creation.reprocess
        part = pps.CreatePipelineTransaction(
            create_pipeline_request=message,
            user_json=json.dumps(creation.user),
            effective_json=json.dumps(creation.effective),
        )
        if dry_run:
            with self._store.write(dry_run=True) as txn:
                self._jobs.create_pipeline(txn, creation)
        else:
            self._transactions.call(context, "create_pipeline_v2", part)

    # --- reading

    def inspect_pipeline(self, request: pps.InspectPipelineRequest, _context: Context) -> pps.PipelineInfo:
        key = convert.pipeline_key(request.pipeline)
        name, back, version = convert.ancestry(key.name)
        pipeline = self._jobs.pipeline(PipelineKey(key.project, name), version, back)
        last = self._jobs.last_job_states().get(pipeline.row)
        return self._info(pipeline, last, request.details)

    def _info(self, pipeline: Pipeline, last: JobState | None, details: bool) -> pps.PipelineInfo:
        return convert.pipeline_info(pipeline, last, details=details, workers=pipeline.spec.parallelism)

    def list_pipeline(
        self, request: pps.ListPipelineRequest, _context: Context
    ) -> Iterator[pps.PipelineInfo]:
        wanted = convert.pipeline_key(request.pipeline) if request.pipeline.name else None
        if wanted is not None:
            self._jobs.pipeline(wanted)
        projects = [p.name for p in request.projects]
        found = [
            one
            for one in self._jobs.list_pipelines(request.history, projects, request.commit_set.id)
            if wanted is None or one.key == wanted
        ]
        last = self._jobs.last_job_states()
        infos = (self._info(pipeline, last.get(pipeline.row), True) for pipeline in found)
        with jq_filter(request.jq_filter) as keep:
            yield from itertools.islice(filter(keep, infos), *page_of(request.page))

    def pipelines_summary(
        self, request: pps.PipelinesSummaryRequest, _context: Context
    ) -> pps.PipelinesSummaryResponse:
        response = pps.PipelinesSummaryResponse()
        for picker in request.projects:
            found = self._jobs.list_pipelines(0, [picker.name])
            last = self._jobs.last_job_states()
            summary = pps.PipelinesSummary(
                active_pipelines=sum(
                    p.state in (PipelineState.RUNNING, PipelineState.STARTING) for p in found
                ),
                paused_pipelines=sum(p.stopped for p in found),
                failed_pipelines=sum(p.state is PipelineState.FAILURE for p in found),
                unhealthy_pipelines=sum(
                    p.state is PipelineState.CRASHING or last.get(p.row) in _BAD_ENDS for p in found
                ),
            )
            summary.project.name = picker.name
            response.summaries.append(summary)
        return response

    def check_status(
        self, request: pps.CheckStatusRequest, _context: Context
    ) -> Iterator[pps.CheckStatusResponse]:
        projects = [] if request.all else [request.project.name or "default"]
        last = self._jobs.last_job_states()
        for pipeline in self._jobs.list_pipelines(0, projects):
            alerts = []
            if pipeline.state in (PipelineState.CRASHING, PipelineState.FAILURE, PipelineState.RESTARTING):
                alerts.append(f"pipeline is {pipeline.state.name}: {pipeline.reason}")
            if last.get(pipeline.row) in _BAD_ENDS:
                alerts.append(f"the newest job ended as {last[pipeline.row].name}")
            key = pipeline.key
            yield pps.CheckStatusResponse(
                project=pfs.Project(name=key.project), pipeline=convert.pipeline_message(key), alerts=alerts
            )

    # --- changing

    def delete_pipeline(self, request: pps.DeletePipelineRequest, _context: Context) -> Empty:
        with self._store.write() as txn:
            if request.all:
                self._jobs.delete_pipelines(txn, [], force=request.force, keep_repo=request.keep_repo)
            else:
                self._jobs.delete_pipeline(
                    txn,
                    convert.pipeline_key(request.pipeline),
                    force=request.force,
                    keep_repo=request.keep_repo,
                    must_exist=request.must_exist,
                )
        return Empty()

    def delete_pipelines(
        self, request: pps.DeletePipelinesRequest, _context: Context
    ) -> pps.DeletePipelinesResponse:
        projects = [] if request.all else [p.name or "default" for p in request.projects]
        if not projects and not request.all:
            return pps.DeletePipelinesResponse()
        with self._store.write() as txn:
            gone = self._jobs.delete_pipelines(
                txn, projects, force=request.force, keep_repo=request.keep_repo
            )
        return pps.DeletePipelinesResponse(pipelines=[convert.pipeline_message(key) for key in gone])

    def delete_all(self, _request: Empty, _context: Context) -> Empty:
        with self._store.write() as txn:
            self._jobs.delete_pipelines(txn, [], force=True, keep_repo=False)
            self._jobs.delete_secrets(txn)
        return Empty()

    def start_pipeline(self, request: pps.StartPipelineRequest, _context: Context) -> Empty:
        with self._store.write() as txn:
            self._jobs.start_pipeline(txn, convert.pipeline_key(request.pipeline))
        return Empty()

    def stop_pipeline(self, request: pps.StopPipelineRequest, _context: Context) -> Empty:
        with self._store.write() as txn:
            key = convert.pipeline_key(request.pipeline)
            self._jobs.stop_pipeline(txn, key, must_exist=request.must_exist)
        return Empty()

    def rerun_pipeline(self, request: pps.RerunPipelineRequest, _context: Context) -> Empty:
        with self._store.write() as txn:
            key = convert.pipeline_key(request.pipeline)
            self._jobs.rerun_pipeline(txn, key, reprocess=request.reprocess)
        return Empty()

    def run_pipeline(self, _request: pps.RunPipelineRequest, _context: Context) -> Empty:
        raise Unimplemented("unimplemented: as on Pachyderm 2; rerun the pipeline, or commit to an input")

    def run_cron(self, request: pps.RunCronRequest, _context: Context) -> Empty:
        self._jobs.run_cron(convert.pipeline_key(request.pipeline))
        return Empty()

    # --- defaults

    def get_cluster_defaults(
        self, _request: pps.GetClusterDefaultsRequest, _context: Context
    ) -> pps.GetClusterDefaultsResponse:
        return pps.GetClusterDefaultsResponse(cluster_defaults_json=self._jobs.cluster_defaults_json())

    def set_cluster_defaults(
        self, request: pps.SetClusterDefaultsRequest, _context: Context
    ) -> pps.SetClusterDefaultsResponse:
        affected = self._set_defaults("", request.cluster_defaults_json, request)
        return pps.SetClusterDefaultsResponse(affected_pipelines=affected)

    def get_project_defaults(
        self, request: pps.GetProjectDefaultsRequest, _context: Context
    ) -> pps.GetProjectDefaultsResponse:
        project = self._store.inspect_project(request.project.name or "default").name
        return pps.GetProjectDefaultsResponse(project_defaults_json=self._jobs.defaults_json(project))

    def set_project_defaults(
        self, request: pps.SetProjectDefaultsRequest, _context: Context
    ) -> pps.SetProjectDefaultsResponse:
        project = self._store.inspect_project(request.project.name or "default").name
        affected = self._set_defaults(project, request.project_defaults_json, request)
        return pps.SetProjectDefaultsResponse(affected_pipelines=affected)

    def _set_defaults(
        self, project: str, text: str, request: pps.SetClusterDefaultsRequest | pps.SetProjectDefaultsRequest
    ) -> list[pps.Pipeline]:
        affected = self._jobs.set_defaults(
            project,
            text,
            regenerate=request.regenerate,
            reprocess=request.reprocess,
            dry_run=request.dry_run,
        )
        return [convert.pipeline_message(key) for key in affected]

    # --- registration

    def handlers(self) -> Handlers:
        """Method name → handler; what is missing is answered UNIMPLEMENTED by the server."""
        return {
            "CreatePipeline": unary(self.create_pipeline, pps.CreatePipelineRequest),
            "CreatePipelineV2": unary(self.create_pipeline_v2, pps.CreatePipelineV2Request),
            "InspectPipeline": unary(self.inspect_pipeline, pps.InspectPipelineRequest),
            "ListPipeline": server_stream(self.list_pipeline, pps.ListPipelineRequest),
            "PipelinesSummary": unary(self.pipelines_summary, pps.PipelinesSummaryRequest),
            "CheckStatus": server_stream(self.check_status, pps.CheckStatusRequest),
            "RunPipeline": unary(self.run_pipeline, pps.RunPipelineRequest),
            "DeletePipeline": unary(self.delete_pipeline, pps.DeletePipelineRequest),
            "DeletePipelines": unary(self.delete_pipelines, pps.DeletePipelinesRequest),
            "DeleteAll": unary(self.delete_all, Empty),
            "StartPipeline": unary(self.start_pipeline, pps.StartPipelineRequest),
            "StopPipeline": unary(self.stop_pipeline, pps.StopPipelineRequest),
            "RerunPipeline": unary(self.rerun_pipeline, pps.RerunPipelineRequest),
            "RunCron": unary(self.run_cron, pps.RunCronRequest),
            "GetClusterDefaults": unary(self.get_cluster_defaults, pps.GetClusterDefaultsRequest),
            "SetClusterDefaults": unary(self.set_cluster_defaults, pps.SetClusterDefaultsRequest),
            "GetProjectDefaults": unary(self.get_project_defaults, pps.GetProjectDefaultsRequest),
            "SetProjectDefaults": unary(self.set_project_defaults, pps.SetProjectDefaultsRequest),
            **self._job_calls.handlers(),
            **self._datum_calls.handlers(),
            **self._log_calls.handlers(),
            **self._secret_calls.handlers(),
        }
