"""Deploys over HTTP on a real engine; what a stranger's SDK client sees of them."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
from pachyderm_sdk.api import pfs, pps

from kaos_backend.pachd.reading import unary
from kaos_backend.services import fill
from kaos_formats import kaos_v1
from kaos_formats.build_secrets import secret_name
from kaos_formats.manifest import MANIFEST_FILE, parse_manifest
from tests.support.backend import DATA, SOURCE, Backend, repo, traces
from tests.support.waiting import eventually

GRID = {"lr": [0.1, 0.5], "epochs": 1}


def counts(job: dict) -> tuple[int, int, int]:  # type: ignore[type-arg]
    train = job["stages"][-1]
    return train["processed"], train["skipped"], train["failed"]


def held(backend: Backend, workspace: str, name: str, kind: str, ref: str) -> dict[str, bytes]:
    """path → content of every file of a commit."""
    client = backend.sdk()
    place = pfs.Repo(name=name, type=kind, project=pfs.Project(name=workspace))
    walk = client.pfs.walk_file(file=pfs.File(commit=pfs.Commit(repo=place, id=ref), path="/"))
    files = [info.file for info in walk if info.file_type == pfs.FileType.FILE]
    return {file.path: b"".join(part.value for part in client.pfs.get_file(file=file)) for file in files}


def stages(job: dict) -> list[str]:  # type: ignore[type-arg]
    return [stage["name"] for stage in job["stages"]]


def test_a_grid_from_nothing_to_models(backend: Backend, workspace: str) -> None:
    made = backend.deploy_all(workspace, GRID, parallelism=2)
    assert made["status"] == "started"
    assert made["parts"] == ["source", "data", "hyper"]
    assert (made["stages"], made["parallelism"]) == (["build", "train"], 2)
    assert made["grid"]["trials"] == 2
    assert (made["grid"]["axes"], made["grid"]["fixed"]) == ({"lr": [0.1, 0.5]}, {"epochs": 1})
    job = backend.wait(workspace, made["job"])
    assert (job["state"], job["reason"]) == ("success", "")
    assert job["metric"] == {"name": "accuracy", "order": "desc", "guessed": True}
    assert job["metrics"] == ["accuracy", "nested.loss"]
    assert [t["metrics"]["accuracy"] for t in job["trials"]] == [0.5, 0.1]
    assert [t["trial"] for t in job["trials"]] == [1, 0]
    assert [t["params"] for t in job["trials"]] == [{"epochs": 1, "lr": 0.5}, {"epochs": 1, "lr": 0.1}]
    source, data = made["source"]["id"], made["data"]["id"]
    assert all(t["model"].startswith(f"{source[:6]}-{data[:6]}-") for t in job["trials"])
    assert all(t["duration_s"] >= 0 for t in job["trials"])
    assert job["inputs"]["source"]["author"] == "me@test"
    assert (job["inputs"]["source"]["name"], job["inputs"]["data"]["name"]) == ("little", "letters")
    assert job["inputs"]["hyper"]["axes"] == GRID
    worst_first = backend.call("GET", f"/workspaces/{workspace}/jobs/last?sort_by=accuracy&order=asc")
    assert [t["trial"] for t in worst_first["trials"]] == [0, 1]


def test_a_stranger_sees_repos_commits_jobs_and_models(backend: Backend, workspace: str) -> None:
    made = backend.deploy_all(workspace, GRID)
    job_id = backend.wait(workspace)["id"]
    client = backend.sdk()
    for name in ("source", "data", "hyper", "build", "train"):
        info = client.pfs.inspect_commit(commit=pfs.Commit(repo=repo(workspace, name), id=job_id))
        assert info.finished.timestamp() > 0
        assert info.error == ""
    said = json.loads(
        client.pfs.inspect_commit(commit=pfs.Commit(repo=repo(workspace, "source"), id=job_id)).description
    )
    assert (said["kaos"], said["kind"], said["id"]) == (1, "source", made["source"]["id"])
    jobs = list(client.pps.inspect_job_set(job_set=pps.JobSet(id=job_id)))
    assert sorted(j.job.pipeline.name for j in jobs) == ["build", "train"]
    assert {j.state for j in jobs} == {pps.JobState.JOB_SUCCESS}
    commit = pfs.Commit(repo=repo(workspace, "train"), id=job_id)
    models = [f.file.path for f in client.pfs.list_file(file=pfs.File(commit=commit, path="/"))]
    assert len(models) == 2
    with client.pfs.pfs_file(pfs.File(commit=commit, path=f"{models[0]}data.txt")) as file:
        assert file.read() == DATA["a.txt"]
    branches = [b.branch.name for b in client.pfs.list_branch(repo=repo(workspace, "source"))]
    assert branches == ["master"]
    assert len(list(client.pfs.list_commit(repo=repo(workspace, "source"), all=True))) == 1


def test_the_same_again_starts_nothing(backend: Backend, workspace: str) -> None:
    first = backend.deploy_all(workspace, GRID)
    backend.wait(workspace)
    before = traces(backend.sdk(), workspace)
    again = backend.deploy_all(workspace, GRID)
    assert (again["status"], again["job"], again["parts"]) == ("unchanged", first["job"], [])
    assert again["stages"] == []
    other_order = {"epochs": 1, "lr": [0.5, 0.1]}
    assert backend.deploy(workspace, hyper=other_order)["job"] == first["job"]
    assert backend.deploy(workspace)["status"] == "unchanged"
    assert traces(backend.sdk(), workspace) == before


def test_while_it_runs_the_same_again_joins_it(backend: Backend, workspace: str) -> None:
    first = backend.deploy_all(workspace, GRID)
    assert backend.deploy_all(workspace, GRID)["job"] == first["job"]
    assert backend.wait(workspace)["id"] == first["job"]


def test_an_added_value_runs_only_the_new_trials(backend: Backend, workspace: str) -> None:
    backend.deploy_all(workspace, GRID)
    backend.wait(workspace)
    made = backend.deploy(workspace, hyper={"lr": [0.1, 0.5, 0.7], "epochs": 1})
    assert (made["parts"], made["stages"]) == (["hyper"], ["train"])
    job = backend.wait(workspace, made["job"])
    assert counts(job) == (1, 2, 0)
    assert stages(job) == ["train"]
    assert sorted(t["state"] for t in job["trials"]) == ["skipped", "skipped", "success"]
    assert [t["metrics"]["accuracy"] for t in job["trials"]] == [0.7, 0.5, 0.1]
    # What the new job says of a trial is the same whoever ran it.
    told = held(backend, workspace, "train", "meta", "master")
    datums = {path.split("/")[2] for path in told}
    assert len(datums) == 3
    for datum in datums:
        below = {path.removeprefix(f"/pfs/{datum}/").split("/")[0] for path in told if datum in path}
        assert below - {"", "meta"} >= {"build", "data", "hyper", "out"}
        meta = json.loads(told[f"/meta/{datum}/meta"])
        assert len(meta["inputs"]) == 3


@pytest.mark.parametrize("at_once", [1000, 0], ids=["in the transaction", "after it"])
def test_a_grid_is_in_its_repo_whatever_was_there(
    backend: Backend, workspace: str, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(fill, "_AT_ONCE", at_once)

    def points() -> list[float]:
        found = held(backend, workspace, "hyper", "user", "master")
        return sorted(json.loads(text)["lr"] for text in found.values())

    backend.deploy_all(workspace, GRID)
    assert points() == [0.1, 0.5]
    backend.deploy(workspace, hyper={"lr": [0.5, 0.7], "epochs": 1}, replace=True)
    assert points() == [0.5, 0.7]
    with backend.sdk().pfs.commit(branch=pfs.Branch(repo=repo(workspace, "hyper"), name="master")) as other:
        other.put_file_from_bytes("/stranger.json", b'{"lr": 9}')
    assert points() == [0.5, 0.7, 9]
    backend.deploy(workspace, hyper={"lr": [0.5, 0.7, 0.9], "epochs": 1}, replace=True)
    assert points() == [0.5, 0.7, 0.9]


def test_what_is_refused_last_leaves_nothing(backend: Backend, workspace: str) -> None:
    backend.deploy(workspace, data=backend.put(workspace, "data", DATA))
    backend.put(workspace, "data", {"other": b"other"})
    client = backend.sdk()
    before = traces(client, workspace)
    [staging] = [branch for branch in before["data"][0] if branch != "master"]
    head = client.pfs.inspect_branch(branch=pfs.Branch(repo=repo(workspace, "data"), name=staging)).head.id
    staged = held(backend, workspace, "data", "user", head)
    pipeline = {
        "pipeline": {"name": "p", "project": {"name": workspace}},
        "transform": {"cmd": ["true"]},
        "input": {"pfs": {"project": workspace, "repo": "nowhere", "glob": "/"}},
    }
    request = kaos_v1.TransactRequest(
        project=workspace,
        repos=["source"],
        commits=[
            kaos_v1.NewCommit(
                repo="data",
                branch="master",
                description="",
                changes=[
                    kaos_v1.Change(path="/"),
                    kaos_v1.Change(path="/", source=kaos_v1.Source(repo="data", commit=head, path="/")),
                    kaos_v1.Change(path="/more", data=b"more"),
                ],
            )
        ],
        pipelines=[kaos_v1.PutPipeline(spec=json.dumps(pipeline), reprocess=False)],
        staged=[kaos_v1.Staged(repo="data", branch=staging, commit=head)],
    )
    transact = unary("Transact", request, kaos_v1.TransactResponse)
    with pytest.raises(grpc.RpcError, match="nowhere"):
        transact(client)
    assert traces(client, workspace) == before
    request.pipelines = []
    [commit] = request.commits
    assert commit.changes is not None
    [staged_name] = [path for path in staged if path.endswith(".tree")]
    commit.changes.append(kaos_v1.Change(path=f"{staged_name}/clash", data=b""))
    with pytest.raises(grpc.RpcError, match="can not be"):
        transact(client)
    assert traces(client, workspace) == before
    commit.changes.pop()
    done = transact(client)
    assert traces(client, workspace)["data"][0] == ["master"]
    assert held(backend, workspace, "data", "user", done.id) == {**staged, "/more": b"more"}


def test_only_data_builds_nothing_and_trains_all(backend: Backend, workspace: str) -> None:
    backend.deploy_all(workspace, GRID)
    backend.wait(workspace)
    data = backend.put(workspace, "data", {"a.txt": b"other\n"})
    made = backend.deploy(workspace, data=data)
    assert (made["parts"], made["stages"]) == (["data"], ["train"])
    job = backend.wait(workspace, made["job"])
    assert stages(job) == ["train"]
    assert counts(job) == (2, 0, 0)
    assert (job["source"]["name"], job["data"]["id"]) == ("little", data)


def test_only_source_uses_the_last_data_and_grid(backend: Backend, workspace: str) -> None:
    backend.deploy_all(workspace, GRID)
    backend.wait(workspace)
    source = backend.put(workspace, "source", {**SOURCE, "notes.txt": b"hello"})
    made = backend.deploy(workspace, source=source)
    assert (made["parts"], made["stages"]) == (["source"], ["build", "train"])
    job = backend.wait(workspace, made["job"])
    assert (job["state"], counts(job)) == ("success", (2, 0, 0))
    back = backend.deploy_all(workspace, GRID)
    job = backend.wait(workspace, back["job"])
    assert counts(job) == (0, 2, 0)


def test_inputs_may_come_one_by_one_in_any_order(backend: Backend, workspace: str) -> None:
    grid = backend.deploy(workspace, hyper=GRID)
    assert (grid["status"], grid["job"], grid["parts"]) == ("waiting", None, ["hyper"])
    data = backend.deploy(workspace, data=backend.put(workspace, "data", DATA))
    assert (data["status"], data["job"]) == ("waiting", None)
    assert "-s" in data["hint"]
    source = backend.deploy(workspace, source=backend.put(workspace, "source", SOURCE))
    assert (source["status"], source["stages"]) == ("started", ["build", "train"])
    assert backend.wait(workspace)["state"] == "success"


def test_source_alone_builds_and_waits_for_data(backend: Backend, workspace: str) -> None:
    made = backend.deploy(workspace, source=backend.put(workspace, "source", SOURCE))
    assert (made["status"], made["stages"]) == ("waiting", ["build"])
    job = backend.wait(workspace, made["job"])
    assert (job["state"], stages(job), job["trials"]) == ("success", ["build"], [])
    again = backend.deploy(workspace)
    assert (again["status"], again["job"]) == ("waiting", made["job"])
    both = backend.deploy(workspace, data=backend.put(workspace, "data", DATA))
    assert both["stages"] == ["train"]
    job = backend.wait(workspace, both["job"])
    assert (job["state"], stages(job)) == ("success", ["train"])
    assert [t["params"] for t in job["trials"]] == [{}]


def test_many_that_fail_are_told_by_their_kinds(backend: Backend, workspace: str) -> None:
    backend.deploy_all(workspace, {"lr": [n / 100 for n in range(23)], "fail": [True]})
    job = backend.wait(workspace)
    assert (job["state"], job["reason"]) == ("failed", "all 23 trials failed: exit code 3: failing as told")
    (kind,) = job["failures"]
    assert (kind["code"], kind["trials"]) == ("exit_code", list(range(23)))


def test_a_failing_trial_keeps_the_others(backend: Backend, workspace: str) -> None:
    made = backend.deploy_all(workspace, {"lr": [0.1, 0.5], "fail": [True, False]})
    job = backend.wait(workspace)
    assert (job["state"], job["reason"]) == ("partial", "2 of 4 trials failed: exit code 3: failing as told")
    assert job["code"] == "exit_code"
    failed = [t for t in job["trials"] if t["state"] == "failed"]
    assert [t["params"]["fail"] for t in failed] == [True, True]
    assert {(t["code"], t["reason"]) for t in failed} == {("exit_code", "exit code 3: failing as told")}
    numbers = sorted(t["trial"] for t in failed)
    assert job["failures"] == [{"code": "exit_code", "reason": failed[0]["reason"], "trials": numbers}]
    again = backend.deploy(workspace)
    assert (again["status"], again["job"]) == ("unchanged", made["job"])
    assert "--retry" in again["hint"]
    retried = backend.deploy(workspace, retry=True)
    assert (retried["status"], retried["parts"]) == ("started", [])
    job = backend.wait(workspace, retried["job"])
    assert counts(job) == (0, 2, 2)


def test_a_broken_build_fails_the_job_and_is_built_again(backend: Backend, workspace: str) -> None:
    source = backend.put(
        workspace, "source", {**SOURCE, "Dockerfile": SOURCE["Dockerfile"] + b"RUN apt-get install x\n"}
    )
    data = backend.put(workspace, "data", DATA)
    first = backend.deploy(workspace, source=source, data=data)
    job = backend.wait(workspace)
    assert job["state"] == "failed"
    assert "build" in job["reason"]
    build, train = job["stages"]
    assert (build["state"], job["reason"]) == ("failed", f"the build failed: {build['reason']}")
    assert "apt-get" in build["reason"]
    assert (train["state"], train["reason"]) == ("unrunnable", "the build failed")
    assert (train["total"], train["processed"]) == (1, 0)
    assert [(t["state"], t["reason"]) for t in job["trials"]] == [("unrunnable", "the build failed")]
    again = backend.deploy(workspace)
    assert again["status"] == "started"
    assert again["job"] != first["job"]
    assert backend.wait(workspace, again["job"])["state"] == "failed"


def test_settings_are_kept_until_others_are_given(backend: Backend, workspace: str) -> None:
    backend.deploy_all(workspace, GRID, parallelism=1, resources={"cpu": 0.5, "memory": "512Mi", "gpu": 0})
    backend.wait(workspace)
    assert backend.deploy(workspace, resources={"memory": "512Mi"})["status"] == "unchanged"
    changed = backend.deploy(workspace, parallelism=2)
    assert (changed["status"], changed["parallelism"]) == ("started", 2)
    assert counts(backend.wait(workspace, changed["job"])) == (0, 2, 0)
    spec = json.loads(
        backend.sdk()
        .pps.inspect_pipeline(
            pipeline=pps.Pipeline(name="train", project=pfs.Project(name=workspace)), details=True
        )
        .user_spec_json
    )
    assert spec["resourceLimits"] == {"cpu": 0.5, "memory": str(512 * 2**20)}


def test_stopping_and_deploying_again_keeps_what_was_done(backend: Backend, workspace: str) -> None:
    slow = {**SOURCE, "train": SOURCE["train"] + b'grep -q slow "$KAOS_PARAMS" && sleep 60\nexit 0\n'}
    made = backend.deploy(
        workspace,
        source=backend.put(workspace, "source", slow),
        data=backend.put(workspace, "data", DATA),
        hyper={"kind": ["a-quick", "b-slow"], "lr": 0.5},
        parallelism=2,
    )
    path = f"/workspaces/{workspace}/jobs/{made['job']}"

    def quick_is_done() -> bool:
        states = {t["params"]["kind"]: t["state"] for t in backend.call("GET", path)["trials"]}
        return states == {"a-quick": "success", "b-slow": "running"}

    eventually(quick_is_done)
    assert backend.call("POST", f"{path}/stop")["id"] == made["job"]
    job = backend.wait(workspace, made["job"])
    assert job["state"] == "killed"
    assert {t["params"]["kind"]: (t["state"], t["reason"]) for t in job["trials"]} == {
        "a-quick": ("success", ""),
        "b-slow": ("killed", "stopped by the user"),
    }
    again = backend.deploy(workspace)
    assert again["status"] == "started"
    states = eventually(
        lambda: (
            {t["state"] for t in backend.call("GET", f"/workspaces/{workspace}/jobs/last")["trials"]}
            == {"skipped", "running"}
        )
    )
    assert states
    backend.call("POST", f"/workspaces/{workspace}/jobs/last/stop")
    assert backend.call("POST", f"/workspaces/{workspace}/jobs/last/stop")["state"] == "killed"


def test_no_deploy_stops_a_job_unasked(backend: Backend, workspace: str) -> None:
    slow = {**SOURCE, "train": SOURCE["train"] + b'grep -q slow "$KAOS_PARAMS" && sleep 60\nexit 0\n'}
    source = backend.put(workspace, "source", slow)
    first = backend.deploy(
        workspace,
        source=source,
        data=backend.put(workspace, "data", DATA),
        hyper={"kind": ["a-quick", "b-slow"]},
        parallelism=2,
    )["job"]
    path = f"/workspaces/{workspace}/jobs/{first}"

    def trials(job: str = path) -> dict[str, str]:
        return {t["params"]["kind"]: t["state"] for t in backend.call("GET", job)["trials"]}

    eventually(lambda: trials() == {"a-quick": "success", "b-slow": "running"})
    deploys = f"/workspaces/{workspace}/deploys"
    for asked in ({"resources": {"cpu": 0.5}}, {"parallelism": 1}):
        error = backend.error("POST", deploys, 409, "job_open", json={"author": "me@test", **asked})
        assert first[:8] in error["message"]
        assert error["fields"]["jobs"] == [first]
    # What changes no pipeline waits for its turn; it is a job of its own, which an update would end as well.
    second = backend.deploy(workspace, hyper={"kind": ["a-quick", "c-quick"]})["job"]
    other = backend.put(workspace, "source", {**SOURCE, "more": b"x"})
    asked = {"author": "me@test", "source": other, "build_secrets": {"TOKEN": "hunter22"}}
    error = backend.error("POST", deploys, 409, "job_open", json=asked)
    assert set(error["fields"]["jobs"]) == {first, second}
    # What is in force keeps the secrets that it has: here none.
    held = {info.secret.name for info in backend.sdk().pps.list_secret().secret_info}
    assert secret_name(workspace) not in held
    assert trials() == {"a-quick": "success", "b-slow": "running"}
    assert backend.call("GET", f"/workspaces/{workspace}/bundles/source/{other}")["id"] == other

    third = backend.deploy(workspace, resources={"cpu": 0.5}, replace=True)
    assert (third["status"], third["stages"]) == ("started", ["train"])
    for job in (first, second):
        ended = backend.wait(workspace, job)
        assert (ended["state"], ended["reason"]) == ("killed", "stopped for another deploy (--replace)")
    assert backend.wait(workspace, third["job"])["state"] == "success"
    assert trials(f"/workspaces/{workspace}/jobs/{third['job']}") == {
        "a-quick": "skipped",
        "c-quick": "success",
    }


def test_lists(backend: Backend, workspace: str) -> None:
    assert backend.call("GET", f"/workspaces/{workspace}/jobs")["jobs"] == []
    first = backend.deploy_all(workspace, GRID)["job"]
    backend.wait(workspace)
    second = backend.deploy(workspace, hyper={"lr": 0.3})["job"]
    backend.wait(workspace)
    jobs = backend.call("GET", f"/workspaces/{workspace}/jobs")["jobs"]
    assert [j["id"] for j in jobs] == [second, first]
    assert [s["state"] for s in jobs[1]["stages"]] == ["success", "success"]
    assert stages(jobs[0]) == ["train"]
    assert [j["hyper"]["trials"] for j in jobs] == [1, 2]
    assert {j["source"]["name"] for j in jobs} == {"little"}
    assert [j["id"] for j in backend.call("GET", f"/workspaces/{workspace}/jobs?limit=1")["jobs"]] == [second]
    assert backend.call("GET", f"/workspaces/{workspace}/jobs/{first[:20]}")["id"] == first
    info = backend.call("GET", f"/workspaces/{workspace}")
    assert (info["jobs"], info["last_job"]["id"]) == (2, second)
    assert info["hyper"]["axes"] == {"lr": 0.3}
    listed = {w["name"]: w["jobs"] for w in backend.call("GET", "/workspaces")["workspaces"]}
    assert listed[workspace] == 2
    assert "default" in listed


def test_a_workspace_can_be_killed_and_made_again(backend: Backend, workspace: str) -> None:
    backend.deploy_all(workspace, GRID)
    deleted = backend.call("DELETE", f"/workspaces/{workspace}")
    assert (deleted["jobs"], deleted["deleted"]) == (1, True)
    backend.error("GET", f"/workspaces/{workspace}", 404, "no_such_workspace")
    backend.workspace(workspace)
    assert backend.call("GET", f"/workspaces/{workspace}")["jobs"] == 0
    assert backend.deploy_all(workspace, GRID)["status"] == "started"
    assert backend.wait(workspace)["state"] == "success"


def test_a_pipeline_that_is_new_reads_what_the_same_deploy_makes(
    backend: Backend, workspace: str, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_bytes(DATA["a.txt"])
    line = {"url": (tmp_path / "a.txt").as_uri(), "path": "a.txt"}
    text = parse_manifest(json.dumps(line).encode()).text

    def source(more: bytes) -> str:
        return backend.put(workspace, "source", {**SOURCE, "more": more}, "little")

    backend.wait(workspace, backend.deploy(workspace, source=source(b"1"))["job"])
    for kind, files, ran in (("data", DATA, 2), ("manifest", {MANIFEST_FILE: text}, 3)):
        code = source(kind.encode())
        made = backend.deploy(workspace, source=code, **{kind: backend.put(workspace, kind, files)})
        job = backend.wait(workspace, made["job"])
        assert (job["state"], job["reason"], stages(job)) == (
            "success",
            "",
            ["fetch", "build", "train"][-ran:],
        )
        assert (job["inputs"]["source"]["id"], job["inputs"]["data"]["files"]) == (code, 4 - ran)
        assert [trial["model"][:6] for trial in job["trials"]] == [code[:6]]
    listed = backend.call("GET", f"/workspaces/{workspace}/jobs")["jobs"]
    assert [stages(one) for one in listed] == [["fetch", "build", "train"], ["build", "train"], ["build"]]
