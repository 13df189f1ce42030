"""Everything that a client can find in a kaos home, as JSON, told by pachyderm-sdk and `kaos` alone.

Nothing is told of what goes on by itself when the home is opened, that is, of the project `UNFINISHED`.
"""

from __future__ import annotations

import json
import stat
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc
from blake3 import blake3
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps

from tests.support.home import Home

UNFINISHED = "unfinished"


def contents(home: Home) -> dict[str, Any]:
    """All of a home. File listings are kept once, in `trees`; commits name them by hash."""
    client = home.client()
    trees: dict[str, list[str]] = {}
    projects = {
        info.project.name: _project(client, info, trees)
        for info in client.pfs.list_project()
        if info.project.name != UNFINISHED
    }
    open_transactions = client.transaction.list_transaction().transaction_info
    return {
        "projects": projects,
        "transactions": {one.transaction.id: len(one.requests) for one in open_transactions},
        "commit_sets": [one.commit_set.id for one in client.pfs.list_commit_set() if not _is_unfinished(one)],
        "results": {
            f"{name} {job['id']}": _result(home, name, job["id"])
            for name, project in projects.items()
            for job in project["jobs"]
            if job["pipeline"] == "train"
        },
        "trees": trees,
    }


def _is_unfinished(one: pfs.CommitSetInfo) -> bool:
    return any(info.commit.repo.project.name == UNFINISHED for info in one.commits)


def _project(client: Client, info: pfs.ProjectInfo, trees: dict[str, list[str]]) -> dict[str, Any]:
    project = info.project
    jobs = client.pps.list_job(projects=[project], history=-1, details=True)
    pipelines = client.pps.list_pipeline(projects=[project], history=-1, details=True)
    return {
        "description": info.description,
        "created": _time(info.created_at),
        "metadata": info.metadata,
        "defaults": json.loads(client.pps.get_project_defaults(project=project).project_defaults_json),
        "repos": {
            f"{repo.repo.name}.{repo.repo.type}": _repo(client, repo, trees)
            for repo in client.pfs.list_repo(type="", projects=[project])
        },
        "pipelines": [_pipeline(one) for one in pipelines],
        "jobs": [_job(client, one) for one in jobs],
    }


def _repo(client: Client, info: pfs.RepoInfo, trees: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "description": info.description,
        "created": _time(info.created),
        "metadata": info.metadata,
        "branches": [_branch(one) for one in client.pfs.list_branch(repo=info.repo)],
        "commits": [_commit(client, one, trees) for one in client.pfs.list_commit(repo=info.repo, all=True)],
    }


def _branch(info: pfs.BranchInfo) -> dict[str, Any]:
    return {
        "name": info.branch.name,
        "head": info.head.id,
        "provenance": [str(one) for one in info.direct_provenance],
        "trigger": info.trigger.to_dict(),
        "metadata": info.metadata,
        "created": _time(info.created_at),
    }


def _commit(client: Client, info: pfs.CommitInfo, trees: dict[str, list[str]]) -> dict[str, Any]:
    try:
        listing = sorted(_files(client, info.commit))
    except grpc.RpcError as error:
        # In error, or on top of one that is still open.
        listing = [error.code().name]
    root = (
        client.pfs.inspect_file(file=pfs.File(commit=info.commit, path="/"))
        if listing[1:]
        else pfs.FileInfo()
    )
    digest = _hash("\n".join(listing).encode())
    trees[digest] = listing
    return {
        "id": info.commit.id,
        "origin": pfs.OriginKind(info.origin.kind).name,
        "description": info.description,
        "parent": info.parent_commit.id,
        "provenance": sorted(f"{one.repo}.{one.repo.type}@{one.id}" for one in info.direct_provenance),
        "started": _time(info.started),
        "finished": _time(info.finished),
        "error": info.error,
        "metadata": info.metadata,
        "size": info.details.size_bytes,
        "hash": root.hash.hex(),
        "tree": digest,
    }


def _files(client: Client, commit: pfs.Commit) -> Iterator[str]:
    """`hash size path` of each file, hashed from what is read and not from what is told."""
    found = client.pfs.walk_file(file=pfs.File(commit=commit, path="/"))
    sizes = {one.file.path: one.size_bytes for one in found if one.file_type == pfs.FileType.FILE}
    if not sizes:
        return
    with client.pfs.pfs_tar_file(pfs.File(commit=commit, path="/")) as tar:
        for member in tar:
            if member.isfile():
                file = tar.extractfile(member)
                assert file is not None
                path = "/" + member.name
                yield f"{_hash(file.read())} {sizes.pop(path)} {path}"
    assert not sizes, f"listed but not read: {sorted(sizes)}"


def _pipeline(info: pps.PipelineInfo) -> dict[str, Any]:
    return {
        "name": info.pipeline.name,
        "version": info.version,
        "spec_commit": info.spec_commit.id,
        "stopped": info.stopped,
        "metadata": info.metadata,
        "salt": info.details.salt,
        "created": _time(info.details.created_at),
        "user_spec": json.loads(info.user_spec_json),
        "effective_spec": json.loads(info.effective_spec_json),
    }


def _job(client: Client, info: pps.JobInfo) -> dict[str, Any]:
    ended = _time(info.finished) is not None
    lines = client.pps.get_logs(job=info.job)
    return {
        "id": info.job.id,
        "pipeline": info.job.pipeline.name,
        "version": info.pipeline_version,
        "state": pps.JobState(info.state).name,
        # Of one that waits it says for what, in words that may get better.
        "reason": info.reason if ended else None,
        "output": f"{info.output_commit.repo}@{info.output_commit.id}",
        "created": _time(info.created),
        "started": _time(info.started),
        "finished": _time(info.finished),
        "data": {
            name: getattr(info, f"data_{name}")
            for name in ("total", "processed", "skipped", "failed", "recovered")
        },
        "datums": [_datum(client, one) for one in client.pps.list_datum(job=info.job)] if ended else [],
        # Also those of datums that were killed, which are not listed.
        "log": sorted(f"{one.datum_id} {one.message}" for one in lines if one.user),
    }


def _datum(client: Client, info: pps.DatumInfo) -> dict[str, Any]:
    lines = client.pps.get_logs(job=info.datum.job, datum=info.datum)
    return {
        "id": info.datum.id,
        "state": pps.DatumState(info.state).name,
        "inputs": [f"{one.file.commit.repo}@{one.file.commit.id}:{one.file.path}" for one in info.data],
        "log": [one.message for one in lines if one.user],
    }


def _result(home: Home, workspace: str, job: str) -> dict[str, Any]:
    """What `train info` says of the trials that succeeded, and every file that `train get` writes."""
    found = home.json("train", "info", job, "-w", workspace, check=False)
    trials = {
        trial["model"]: [trial["state"], trial["params"], trial["metrics"]]
        for trial in found["trials"]
        if trial["state"] in ("success", "skipped")
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        home.run("train", "get", job, "-w", workspace, "--code", "--data", "-o", out, check=False)
        files = [
            f"{_hash(path.read_bytes())} {stat.filemode(path.stat().st_mode)} {path.relative_to(out)}"
            for path in sorted(out.rglob("*"))
            if path.is_file()
        ]
    return {
        "inputs": {kind: found["inputs"][kind]["id"] for kind in ("source", "data", "hyper")},
        "trials": trials,
        "files": files,
    }


def _hash(content: bytes) -> str:
    return blake3(content).hexdigest(length=16)


def _time(moment: datetime) -> str | None:
    """None for the epoch, which is how a time that is not set arrives."""
    return moment.isoformat() if moment.timestamp() else None
