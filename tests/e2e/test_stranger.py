"""A program that knows pachyderm-sdk and nothing of kaos sees all of a finished deploy."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps

from tests.support.bundles import write_grid
from tests.support.home import Home


def test_repos_commits_pipelines_jobs_datums_logs_and_models(
    home: Home, workspace: str, src: Path, data: Path, tmp_path: Path
) -> None:
    grid = write_grid(tmp_path / "grid.json", {"x": [1, 2, 3]})
    job_id = home.json("train", "deploy", "-w", workspace, "-s", src, "-d", data, "-h", grid, "--wait")["job"]
    client = home.client()
    project = pfs.Project(name=workspace)

    repos = {info.repo.name for info in client.pfs.list_repo(type="user", projects=[project])}
    assert repos == {"source", "data", "hyper", "build", "train"}

    commits = {
        info.commit.repo.name: info.commit.id
        for info in client.pfs.inspect_commit_set(commit_set=pfs.CommitSet(id=job_id), wait=True)
        if info.commit.repo.type == "user"
    }
    assert commits == dict.fromkeys(repos, job_id)
    assert [s.commit_set.id for s in client.pfs.list_commit_set(project=project)] == [job_id]

    jobs = {}
    for name in ("build", "train"):
        pipeline = pps.Pipeline(project=project, name=name)
        assert client.pps.inspect_pipeline(pipeline=pipeline, details=True).pipeline.name == name
        jobs[name] = client.pps.inspect_job(job=pps.Job(pipeline=pipeline, id=job_id), wait=True)
        assert jobs[name].state == pps.JobState.JOB_SUCCESS
    assert jobs["train"].data_total == 3

    datums = list(client.pps.list_datum(job=jobs["train"].job))
    assert {d.state for d in datums} == {pps.DatumState.SUCCESS}
    assert len(datums) == 3

    logs = list(client.pps.get_logs(pipeline=jobs["train"].job.pipeline, job=jobs["train"].job))
    assert sum(m.user and m.message == "trained" for m in logs) == 3

    head = pfs.Commit(repo=pfs.Repo(name="train", project=project), id=job_id)
    models = list(client.pfs.list_file(file=pfs.File(commit=head, path="/")))
    assert len(models) == 3
    for model in models:
        with client.pfs.pfs_file(pfs.File(commit=head, path=f"{model.file.path}metrics.json")) as metrics:
            assert json.loads(metrics.read())["accuracy"] in (1, 2, 3)


def test_nothing_is_answered_without_the_token(home: Home, workspace: str) -> None:
    env = home.json("status", "--env")["env"]
    for token in (None, "0" * 64):
        stranger = Client(
            host=env["PACHD_PEER_SERVICE_HOST"], port=int(env["PACHD_PEER_SERVICE_PORT"]), auth_token=token
        )
        with pytest.raises(grpc.RpcError) as refused:
            stranger.get_version()
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert (home.path / "token").stat().st_mode & 0o777 == 0o600
