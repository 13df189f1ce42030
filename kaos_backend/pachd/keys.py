"""How the SDK names a repo, a commit, a pipeline, a job."""

from __future__ import annotations

from pachyderm_sdk.api import pfs, pps


def repo(project: str, name: str) -> pfs.Repo:
    name, _, kind = name.partition(".")
    return pfs.Repo(name=name, type=kind or "user", project=pfs.Project(name=project))


def commit(project: str, of: str, ref: str) -> pfs.Commit:
    return pfs.Commit(repo=repo(project, of), id=ref)


def pipeline(project: str, name: str) -> pps.Pipeline:
    return pps.Pipeline(name=name, project=pfs.Project(name=project))


def job(project: str, of: str, job_id: str) -> pps.Job:
    return pps.Job(pipeline=pipeline(project, of), id=job_id)
