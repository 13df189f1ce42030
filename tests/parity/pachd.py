"""What the tests of the suite do to a server, all of it through pachyderm-sdk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import pytest
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps

# Long enough for a cluster that pulls an image and starts a pod for it.
PATIENCE_S = 600.0
NO_ID = "0" * 12 + "4" + "0" * 19
UNKNOWN = grpc.StatusCode.UNKNOWN
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED
NOT_FOUND = grpc.StatusCode.NOT_FOUND
EXISTS = grpc.StatusCode.ALREADY_EXISTS
INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
# Commands of pipelines on the input `data`.
COPY = "cat $data > $OUT/$(basename $data)"
SLEEP = "sleep 600"
T = TypeVar("T")
ENDED = (
    pps.JobState.JOB_SUCCESS,
    pps.JobState.JOB_FAILURE,
    pps.JobState.JOB_KILLED,
    pps.JobState.JOB_UNRUNNABLE,
)


@dataclass(frozen=True)
class Address:
    """Where a pachd listens, and the token it wants ("" for none). ``socket``: of the embedded engine."""

    host: str
    port: int
    token: str
    socket: str = ""


def eventually(check: Callable[[], T], what: str) -> T:
    """The first true answer of `check`."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        if answer := check():
            return answer
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


def refused(code: grpc.StatusCode, text: str = "") -> pytest.RaisesExc[grpc.RpcError]:
    """A context in which a call must end with `code`, and with `text` somewhere in its details."""

    def check(error: grpc.RpcError) -> bool:
        assert text in error.details()
        return bool(error.code() == code)

    return pytest.RaisesExc(grpc.RpcError, check=check)


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Start `call`; what it returns, or the error it ends with, is put into the list."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(call())
        except grpc.RpcError as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results


def file(commit: pfs.Commit, path: str) -> pfs.File:
    return pfs.File(commit=commit, path=path)


def add(path: str, raw: bytes | None, datum: str = "") -> pfs.ModifyFileRequest:
    return pfs.ModifyFileRequest(add_file=pfs.AddFile(path=path, raw=raw, datum=datum))


def delete(path: str, datum: str = "") -> pfs.ModifyFileRequest:
    return pfs.ModifyFileRequest(delete_file=pfs.DeleteFile(path=path, datum=datum))


def paths(infos: Iterable[pfs.FileInfo]) -> list[str]:
    return [info.file.path for info in infos]


def ids(infos: Iterable[pfs.CommitInfo]) -> list[str]:
    return [info.commit.id for info in infos]


def is_set(moment: Any) -> bool:
    """Whether a timestamp was sent: the SDK reads one that was not as 1970."""
    return bool(moment.year > 1970)


class Pachd:
    """A server, through a client of its own, and a project that the test has to itself."""

    def __init__(self, client: Client, address: Address, image: str, project: str) -> None:
        self.client = client
        self.address = address
        self.image = image
        self._projects: list[pfs.Project] = []
        self.project = self.new_project(project)

    def new_project(self, name: str = "") -> pfs.Project:
        """One more project that goes with the test."""
        project = pfs.Project(name=name or f"{self.project.name}-{len(self._projects)}")
        self.client.pfs.create_project(project=project)
        self._projects.append(project)
        return project

    def remove(self) -> None:
        """Delete what the test left, and nothing else."""
        client = self.another_client()  # the test's own may be in the middle of a transaction
        for project in self._projects:
            client.pps.delete_pipelines(projects=[project], force=True)
            client.pfs.delete_project(project=project, force=True)

    def another_client(self) -> Client:
        return Client(host=self.address.host, port=self.address.port, auth_token=self.address.token or None)

    # Names.

    def named(self, repo: str, type: str = "user") -> pfs.Repo:
        return pfs.Repo(name=repo, type=type, project=self.project)

    def branch(self, repo: str, name: str = "master") -> pfs.Branch:
        return pfs.Branch(repo=self.named(repo), name=name)

    def commit(self, repo: str, ref: str = "master", type: str = "user") -> pfs.Commit:
        """The commit that `ref` names: an id, a branch, either with ancestry behind it."""
        return pfs.Commit(repo=self.named(repo, type), id=ref)

    # Files.

    def repo(self, name: str, files: Mapping[str, bytes] | None = None) -> pfs.Repo:
        repo = self.named(name)
        self.client.pfs.create_repo(repo=repo)
        if files is not None:
            self.put(name, files)
        return repo

    def put(self, repo: str, files: Mapping[str, bytes], branch: str = "master") -> pfs.Commit:
        """One finished commit with these files on top."""
        return self.change(
            repo, [op for path, raw in files.items() for op in (delete(path), add(path, raw))], branch
        )

    def change(self, repo: str, ops: Iterable[pfs.ModifyFileRequest], branch: str = "master") -> pfs.Commit:
        """One finished commit with these changes."""
        commit = self.start(repo, branch)
        self.modify(commit, *ops)
        self.client.pfs.finish_commit(commit=commit)
        self.client.pfs.wait_commit(commit)
        return commit

    def start(self, repo: str, branch: str = "master", **more: Any) -> pfs.Commit:
        started = self.client.pfs.start_commit(branch=self.branch(repo, branch), **more)
        return pfs.Commit(repo=self.named(repo), id=started.id)

    def modify(self, commit: pfs.Commit, *ops: pfs.ModifyFileRequest) -> None:
        self.client.pfs.modify_file(iter([pfs.ModifyFileRequest(set_commit=commit), *ops]))

    def read(self, commit: pfs.Commit, path: str, **more: Any) -> bytes:
        return b"".join(part.value for part in self.client.pfs.get_file(file=file(commit, path), **more))

    def files(self, commit: pfs.Commit) -> dict[str, bytes]:
        """path → content of every file of a commit."""
        infos = self.client.pfs.walk_file(file=file(commit, "/"))
        found = [info.file.path for info in infos if info.file_type == pfs.FileType.FILE]
        return {path: self.read(commit, path) for path in found}

    # Branches that depend on others, as the outputs of pipelines do.

    def derived(self, repo: str, *sources: str) -> pfs.Branch:
        """A repo with a branch whose provenance is the masters of `sources`, its first commit finished."""
        self.repo(repo)
        branch = self.branch(repo)
        self.client.pfs.create_branch(branch=branch, provenance=[self.branch(name) for name in sources])
        self.finish_by_force(self.head(branch))
        return branch

    def head(self, branch: pfs.Branch) -> pfs.Commit:
        return self.client.pfs.inspect_branch(branch=branch).head

    def finish_by_force(self, commit: pfs.Commit, error: str = "") -> None:
        self.client.pfs.finish_commit(commit=commit, force=True, error=error)
        self.client.pfs.wait_commit(commit)

    # Pipelines and jobs.

    def pipeline(
        self, name: str, script: str, inputs: pps.Input | Mapping[str, str], *, err: bool = False, **more: Any
    ) -> pps.Pipeline:
        """A pipeline that runs a shell script with `$OUT`; `inputs` may be the cross of repo → glob."""
        pipeline = pps.Pipeline(name=name, project=self.project)
        # A server that cannot give every datum a /pfs says in PACH_PFS where the folder is.
        prelude = 'set -e; OUT="${PACH_PFS:-/pfs}/out"\n'
        self.client.pps.create_pipeline(
            pipeline=pipeline,
            transform=pps.Transform(
                image=self.image,
                cmd=["sh", "-c", prelude + script],
                err_cmd=["sh", "-c", "true"] if err else [],
                **more.pop("transform", {}),
            ),
            input=inputs if isinstance(inputs, pps.Input) else self.cross(inputs),
            **{
                "datum_tries": 1,
                "resource_requests": pps.ResourceSpec(cpu=0.1, memory="64M"),
                **more,
            },
        )
        return pipeline

    def input(self, repo: str, glob: str, **more: Any) -> pps.Input:
        return pps.Input(pfs=pps.PfsInput(project=self.project.name, repo=repo, glob=glob, **more))

    def cross(self, inputs: Mapping[str, str]) -> pps.Input:
        nodes = [self.input(repo, glob) for repo, glob in inputs.items()]
        return nodes[0] if len(nodes) == 1 else pps.Input(cross=nodes)

    def jobs(self, pipeline: pps.Pipeline) -> list[pps.JobInfo]:
        """All jobs of a pipeline, of every version, newest first."""
        return list(self.client.pps.list_job(pipeline=pipeline, history=-1))

    def ended(self, pipeline: pps.Pipeline, id: str = "", details: bool = False) -> pps.JobInfo:
        """A job (the newest by default) when it has ended."""
        job = pps.Job(pipeline=pipeline, id=id or self.jobs(pipeline)[0].job.id)
        return self.client.pps.inspect_job(job=job, wait=True, details=details)

    def succeeded(self, pipeline: pps.Pipeline, id: str = "", details: bool = False) -> pps.JobInfo:
        job = self.ended(pipeline, id, details)
        assert job.state == pps.JobState.JOB_SUCCESS, job.reason
        return job

    def running(self, pipeline: pps.Pipeline) -> pps.JobInfo:
        """The newest job as soon as it runs."""

        def look() -> pps.JobInfo | None:
            job = self.jobs(pipeline)[0]
            assert job.state not in ENDED, job.reason
            return job if job.state == pps.JobState.JOB_RUNNING else None

        found = eventually(look, f"a job of {pipeline.name} runs")
        assert found is not None
        return found

    def said(self, **of: Any) -> Iterator[str]:
        """The lines of user code in the logs."""
        return (message.message for message in self.client.pps.get_logs(**of) if message.user)
