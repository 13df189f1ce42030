"""The adapter from the port to pachyderm-sdk: translates values and errors, decides nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from pachyderm_sdk.api import pfs, pps

from kaos_backend import errors
from kaos_backend.domain.metas import reason_of
from kaos_backend.domain.models import (
    Cluster,
    Commit,
    Datum,
    FileOp,
    Job,
    Pipeline,
    Project,
    PutPipeline,
    Queue,
    Repo,
    RunningDatum,
    Staged,
    StartCommit,
)
from kaos_backend.pachd import convert, keys, reading, sending, transactions
from kaos_backend.pachd.connection import Connection
from kaos_backend.pachd.endpoint import Engine
from kaos_backend.pachd.errors import CommitFinished
from kaos_backend.pachd.foreground import SdkForeground
from kaos_backend.pachd.handover import SdkIngest, export
from kaos_backend.pachd.logs import SdkLogStream
from kaos_backend.pachd.port import ForegroundCall, IngestCall, LogStream
from kaos_backend.pachd.reading import stream, unary
from kaos_formats import kaos_v1
from kaos_formats.handover import File, Folder
from kaos_formats.names import meta_repo

_ALL_VERSIONS = -1
_OPEN = "select(.finished == null)"


class SdkPachd:
    """Implements ``port.Pachd``."""

    def __init__(self, engine: Engine) -> None:
        self._connection = Connection(engine)

    # -- projects and repos

    def cluster(self) -> Cluster:
        info = self._connection.read(lambda c: c.admin.inspect_cluster())
        return Cluster(self._connection.address, info.id, dict(info.metadata))

    def projects(self) -> list[Project]:
        infos = self._list(lambda c: c.pfs.list_project())
        return [_project(info) for info in infos]

    def project(self, name: str) -> Project:
        return _project(
            self._connection.read(lambda c: c.pfs.inspect_project(project=pfs.Project(name=name)))
        )

    def create_project(self, name: str, description: str) -> None:
        project = pfs.Project(name=name)
        self._connection.write(lambda c: c.pfs.create_project(project=project, description=description))

    def delete_project(self, name: str) -> None:
        project = pfs.Project(name=name)
        self._connection.write(lambda c: c.pps.delete_pipelines(projects=[project], force=True))
        self._connection.write(lambda c: c.pfs.delete_project(project=project, force=True))

    def repos(self, project: str | None = None) -> list[Repo]:
        projects = [] if project is None else [pfs.Project(name=project)]
        return [
            convert.repo(i) for i in self._list(lambda c: c.pfs.list_repo(type="user", projects=projects))
        ]

    def ensure_repos(self, project: str, names: Sequence[str]) -> Mapping[str, Repo]:
        existing = {repo.name: repo for repo in self.repos(project) if repo.name in names}
        for name in names:
            if name not in existing:
                repo = keys.repo(project, name)
                with contextlib.suppress(errors.Exists):
                    self._connection.write(lambda c, repo=repo: c.pfs.create_repo(repo=repo))  # type: ignore[misc]
        return existing

    # -- commits

    def commit(self, project: str, repo: str, ref: str) -> Commit:
        commit = keys.commit(project, repo, ref)
        return convert.commit(self._connection.read(lambda c: c.pfs.inspect_commit(commit=commit)))

    def commits(self, project: str, repo: str, number: int) -> list[Commit]:
        try:
            infos = self._list(
                lambda c: c.pfs.list_commit(repo=keys.repo(project, repo), number=number, all=True)
            )
        except errors.NotFound:
            return []
        return [convert.commit(info) for info in infos]

    def start_commit(self, project: str, repo: str, branch: str, description: str) -> str:
        target = pfs.Branch(repo=keys.repo(project, repo), name=branch)
        commit = self._connection.write(lambda c: c.pfs.start_commit(branch=target, description=description))
        return str(commit.id)

    def modify(self, project: str, repo: str, commit_id: str, ops: Iterable[FileOp]) -> None:
        sending.modify(self._connection, project, repo, commit_id, ops)

    def finish_commit(
        self, project: str, repo: str, commit_id: str, error: str = "", description: str = ""
    ) -> Commit:
        commit = keys.commit(project, repo, commit_id)
        with contextlib.suppress(CommitFinished):
            self._connection.write(
                lambda c: c.pfs.finish_commit(commit=commit, error=error, description=description)
            )
        info = self._connection.read(
            lambda c: c.pfs.inspect_commit(commit=commit, wait=pfs.CommitState.FINISHED)
        )
        return convert.commit(info)

    def drop_branch(self, project: str, repo: str, branch: str) -> None:
        target = pfs.Branch(repo=keys.repo(project, repo), name=branch)
        with contextlib.suppress(errors.NotFound):
            self._connection.write(lambda c: c.pfs.delete_branch(branch=target))

    def drop_commit_set(self, commit_id: str) -> None:
        commit_set = pfs.CommitSet(id=commit_id)
        with contextlib.suppress(errors.NotFound):
            self._connection.write(lambda c: c.pfs.drop_commit_set(commit_set=commit_set))

    def forget_commit(self, project: str, repo: str, commit_id: str) -> None:
        commit = keys.commit(project, repo, commit_id)
        with contextlib.suppress(errors.NotFound):
            info = self._connection.read(lambda c: c.pfs.inspect_commit(commit=commit))
            if made := info.direct_subvenance:
                user = made[0]
                raise errors.InUse(
                    f"commit {user.id[:8]} of {user.repo.name} was made of commit {commit_id[:8]} of {repo}",
                    hint="remove the pipeline that reads it first",
                )
            # Pachyderm squashes no head and drops no parent.
            remove = "squash_commit" if info.child_commits else "drop_commit"
            self._connection.write(lambda c: getattr(c.pfs, remove)(commit=commit))

    def transact(self, project: str, commits: Sequence[StartCommit], pipelines: Sequence[PutPipeline]) -> str:
        return transactions.transact(self._connection, project, commits, pipelines)

    def transact_at_once(
        self,
        project: str,
        repos: Sequence[str],
        commits: Sequence[StartCommit],
        pipelines: Sequence[PutPipeline],
        staged: Sequence[Staged],
    ) -> str:
        return transactions.transact_at_once(self._connection, project, repos, commits, pipelines, staged)

    def delete_abandoned_transactions(self, owner: str, before: datetime) -> int:
        return transactions.delete_abandoned(self._connection, owner, before)

    # -- files

    def read_file(self, project: str, repo: str, commit_id: str, path: str) -> Iterator[bytes]:
        file = pfs.File(commit=keys.commit(project, repo, commit_id), path=path)
        for message in self._connection.stream(lambda c: c.pfs.get_file(file=file)):
            yield message.value

    def read_tar(self, project: str, repo: str, commit_id: str, glob: str) -> Iterator[bytes]:
        file = pfs.File(commit=keys.commit(project, repo, commit_id), path=glob)
        for message in self._connection.stream(lambda c: c.pfs.get_file_tar(file=file)):
            yield message.value

    def sizes(self, project: str, repo: str, commit_id: str, folder: str) -> Mapping[str, int]:
        commit = keys.commit(project, repo, commit_id)
        return reading.sizes(self._connection, commit, folder)

    def folders(self, project: str, repo: str, commit_id: str, glob: str) -> Mapping[str, str]:
        commit = keys.commit(project, repo, commit_id)
        infos = self._list(lambda c: c.pfs.glob_file(commit=commit, pattern=glob))
        return {i.file.path.strip("/"): i.hash.hex() for i in infos if i.file_type == pfs.FileType.DIR}

    # -- pipelines, jobs, datums

    def pipelines(self, project: str) -> list[Pipeline]:
        infos = self._list(lambda c: c.pps.list_pipeline(projects=[pfs.Project(name=project)]))
        return [convert.pipeline(info) for info in infos]

    def jobs(
        self,
        project: str | None,
        pipeline: str | None = None,
        number: int = 0,
        before: datetime | None = None,
    ) -> list[Job]:
        request: dict[str, Any] = {"history": _ALL_VERSIONS, "number": number}
        if before is not None:
            request["pagination_marker"] = before
        if project is not None and pipeline is not None:
            request["pipeline"] = keys.pipeline(project, pipeline)
        elif project is not None:
            request["projects"] = [pfs.Project(name=project)]
        try:
            return [convert.job(info) for info in self._list(lambda c: c.pps.list_job(**request))]
        except errors.NotFound:
            return []

    def queue(self) -> Queue:
        call = unary("Queue", kaos_v1.QueueRequest(), kaos_v1.QueueResponse)
        try:
            return convert.queue(self._connection.read(call))
        except errors.NeedsEmbeddedEngine:
            infos = self._list(lambda c: c.pps.list_job(history=_ALL_VERSIONS, jq_filter=_OPEN))
        # Pachyderm lists the newest first.
        return Queue(tuple(convert.open_job(info) for info in reversed(infos)), None)

    def room(self, needed_bytes: int, objects: Mapping[bytes, int]) -> kaos_v1.RoomResponse:
        request = kaos_v1.RoomRequest(
            wanted=needed_bytes, objects=list(objects), sizes=list(objects.values())
        )
        return self._connection.read(unary("Room", request, kaos_v1.RoomResponse))

    def find(self, objects: Mapping[bytes, int]) -> kaos_v1.FindResponse:
        request = kaos_v1.FindRequest(objects=list(objects), sizes=list(objects.values()))
        return self._connection.read(unary("Find", request, kaos_v1.FindResponse))

    def receive(
        self, name: bytes, size: int, offset: int, pieces: Iterable[bytes]
    ) -> kaos_v1.ReceiveResponse:
        return sending.receive(self._connection, name, size, offset, pieces)

    def job_set(self, project: str, job_id: str) -> list[Job]:
        try:
            infos = self._list(lambda c: c.pps.inspect_job_set(job_set=pps.JobSet(id=job_id)))
        except errors.NotFound:
            return []
        return [convert.job(info) for info in infos if info.job.pipeline.project.name == project]

    def job_spec(self, project: str, pipeline: str, job_id: str) -> Mapping[str, Any]:
        return self._job_details(project, pipeline, job_id).to_dict()

    def delete_job(self, project: str, pipeline: str, job_id: str) -> None:
        with contextlib.suppress(errors.NotFound):
            self._connection.write(lambda c: c.pps.delete_job(job=keys.job(project, pipeline, job_id)))

    def stop_job(self, project: str, pipeline: str, job_id: str, reason: str) -> None:
        job = keys.job(project, pipeline, job_id)
        self._connection.write(lambda c: c.pps.stop_job(job=job, reason=reason))

    def datums(
        self, project: str, pipeline: str, job_id: str, *, since: int = 0, path: str = ""
    ) -> list[Datum]:
        request = kaos_v1.DatumsRequest(
            project=project, pipeline=pipeline, job=job_id, since=since, path=path
        )
        return reading.datums(self._connection, request)

    def job_counts(self, pipelines: Collection[str]) -> Mapping[str, int]:
        return reading.job_counts(self._connection, pipelines, self.jobs)

    def job_ids(self, project: str, pipelines: Collection[str], prefix: str = "") -> list[str]:
        return reading.job_ids(self._connection, project, pipelines, prefix, self.jobs)

    def running(self, project: str, pipeline: str, job_id: str) -> list[RunningDatum]:
        status = self._job_details(project, pipeline, job_id).worker_status
        return [convert.running_datum(s) for s in status if s.job_id == job_id]

    def _job_details(self, project: str, pipeline: str, job_id: str) -> pps.JobInfoDetails:
        job = keys.job(project, pipeline, job_id)
        return self._connection.read(lambda c: c.pps.inspect_job(job=job, details=True)).details

    def datum_reason(self, project: str, pipeline: str, job_id: str, datum_id: str) -> str:
        file = pfs.File(
            commit=keys.commit(project, meta_repo(pipeline), job_id), path=f"/meta/{datum_id}/meta"
        )
        try:
            content = b"".join(m.value for m in self._connection.stream(lambda c: c.pfs.get_file(file=file)))
        except (errors.NotFound, errors.Internal):
            return ""
        return reason_of(content)

    def logs(
        self,
        project: str,
        pipeline: str,
        job_id: str,
        *,
        datum_id: str = "",
        path: str = "",
        follow: bool = False,
        tail: int = 0,
    ) -> LogStream:
        job = keys.job(project, pipeline, job_id)
        request = pps.GetLogsRequest(job=job, follow=follow, tail=tail)
        if path:
            request.data_filters = [path]
        if datum_id:
            request.datum = pps.Datum(id=datum_id, job=job)
        return SdkLogStream(self._connection, request)

    # -- secrets

    def put_secret(self, name: str, values: Mapping[str, str]) -> None:
        file = json.dumps({"metadata": {"name": name}, "stringData": dict(values)}).encode()
        try:
            self._connection.write(unary("PutSecret", kaos_v1.PutSecretRequest(file=file), kaos_v1.Done))
        except errors.NeedsEmbeddedEngine:
            # Pachyderm replaces none.
            self.drop_secret(name)
            self._connection.write(lambda c: c.pps.create_secret(name=name, data=dict(values)))

    def drop_secret(self, name: str) -> None:
        there = self._connection.read(lambda c: c.pps.list_secret()).secret_info
        if any(info.secret.name == name for info in there):
            self._connection.write(lambda c: c.pps.delete_secret(secret=pps.Secret(name=name)))

    # -- what only the embedded engine has

    def check(self, repair: bool) -> Iterator[kaos_v1.Finding | kaos_v1.Progress]:
        request = kaos_v1.CheckRequest(repair=repair)

        for response in self._connection.stream(stream("Check", request, kaos_v1.CheckResponse)):
            told = response.finding or response.progress
            if told is not None:
                yield told

    def collect(self, dry_run: bool) -> Iterator[kaos_v1.Collected | kaos_v1.CollectProgress]:
        request = kaos_v1.CollectRequest(dry_run=dry_run)
        for response in self._connection.stream(stream("Collect", request, kaos_v1.CollectResponse)):
            told = response.collected or response.progress
            if told is not None:
                yield told

    def disk_use(self) -> kaos_v1.DiskUseResponse:
        return self._connection.read(unary("DiskUse", kaos_v1.DiskUseRequest(), kaos_v1.DiskUseResponse))

    def damaged(self, project: str, repo: str, commit_id: str, path: str) -> list[str]:
        request = kaos_v1.DamagedRequest(project=project, repo=repo, commit=commit_id, path=path)
        call = unary("Damaged", request, kaos_v1.DamagedResponse)
        try:
            return self._connection.read(call).paths
        except errors.NeedsEmbeddedEngine:
            return []

    def stop_datum(self, project: str, pipeline: str, job_id: str, path: str, reason: str) -> None:
        request = kaos_v1.StopDatumRequest(
            project=project, pipeline=pipeline, job=job_id, path=path, reason=reason
        )
        self._connection.write(unary("StopDatum", request, kaos_v1.Done))

    def pause(self, project: str | None, paused: bool) -> kaos_v1.PausedResponse:
        request = kaos_v1.PauseRequest(project=project or "", paused=paused)
        # Twice is as good as once.
        return self._connection.read(unary("Pause", request, kaos_v1.PausedResponse))

    def paused(self) -> kaos_v1.PausedResponse:
        call = unary("Paused", kaos_v1.PausedRequest(), kaos_v1.PausedResponse)
        try:
            return self._connection.read(call)
        except errors.NeedsEmbeddedEngine:
            return kaos_v1.PausedResponse()

    def ingest(self, folder: Folder, files: Iterable[list[File]]) -> IngestCall:
        return SdkIngest(self._connection, folder, files)

    def export(self, request: kaos_v1.ExportRequest) -> Iterator[kaos_v1.ExportResponse]:
        return export(self._connection, request)

    def foreground(self, ask: kaos_v1.ForegroundOpen) -> ForegroundCall:
        return SdkForeground(self._connection, ask)

    def rerun_job(self, project: str, pipelines: Sequence[str], job_id: str, *, only_failed: bool) -> str:
        request = kaos_v1.RerunJobRequest(
            project=project, pipelines=list(pipelines), job=job_id, only_failed=only_failed
        )
        return self._connection.write(unary("RerunJob", request, kaos_v1.RerunJobResponse)).job

    def _list(self, call: Any) -> list[Any]:
        return self._connection.read(lambda c: list(call(c)))


def _project(info: pfs.ProjectInfo) -> Project:
    return Project(info.project.name, info.description, convert.moment(info.created_at))
