"""Pipelines and jobs as a program on pachyderm-sdk sees them."""

from __future__ import annotations

import json

import grpc
import pytest
from pachyderm_sdk.api import pfs, pps

from tests.integration.engine.conftest import Engine
from tests.support.waiting import eventually

MODEL = """
name=$(basename $a)-$(basename $b)
echo $name >> $SIDE/runs
cat $a $b > $OUT/$name
"""


def cross(engine: Engine, **more: object) -> pps.Pipeline:
    engine.repo("a", {"/1": b"one", "/2": b"two"})
    engine.repo("b", {"/x": b"ex"})
    return engine.pipeline("p", MODEL, {"a": "/*", "b": "/*"}, **more)


def test_a_cross_runs_one_datum_per_pair_and_keeps_what_each_wrote(engine: Engine) -> None:
    pipeline = cross(engine)
    job = engine.wait("p", details=True)
    assert job.state == pps.JobState.JOB_SUCCESS, job.reason
    assert (job.data_total, job.data_processed, job.data_skipped) == (2, 2, 0)
    assert engine.files("p") == {"/1-x": b"oneex", "/2-x": b"twoex"}
    assert job.job.id == engine.client.pfs.inspect_commit(commit=pfs.Commit.from_uri("p@master")).commit.id
    assert job.details.input.cross[0].pfs.commit == job.job.id
    assert job.details.transform.env["SIDE"] == str(engine.side)
    datums = list(engine.client.pps.list_datum(job=job.job))
    assert [d.state for d in datums] == [pps.DatumState.SUCCESS] * 2
    assert [d.datum.id for d in datums] == sorted(d.datum.id for d in datums)
    assert {tuple(f.file.path for f in d.data) for d in datums} == {("/1", "/x"), ("/2", "/x")}
    one = engine.client.pps.inspect_datum(datum=datums[0].datum)
    assert one.datum.id == datums[0].datum.id
    info = engine.client.pps.inspect_pipeline(pipeline=pipeline, details=True)
    assert info.state == pps.PipelineState.PIPELINE_RUNNING
    assert info.last_job_state == pps.JobState.JOB_SUCCESS
    assert info.details.datum_tries == 1
    assert json.loads(info.effective_spec_json)["outputBranch"] == "master"


def test_the_meta_commit_records_every_datum(engine: Engine) -> None:
    cross(engine)
    job = engine.wait("p")
    datum = next(iter(engine.client.pps.list_datum(job=job.job)))
    meta = pfs.Commit(repo=pfs.Repo(name="p", type="meta"), id=job.job.id)
    with engine.client.pfs.pfs_file(pfs.File(commit=meta, path=f"/meta/{datum.datum.id}/meta")) as file:
        record = json.loads(file.read())
    assert record["state"] == "PROCESSED"
    assert record["job"]["id"] == job.job.id
    assert {i["name"] for i in record["inputs"]} == {"a", "b"}
    below = engine.client.pfs.walk_file(file=pfs.File(commit=meta, path=datum.pfs_state.path))
    assert {
        i.file.path.removeprefix(datum.pfs_state.path).split("/")[1]
        for i in below
        if i.file.path.count("/") > 2
    } >= {
        "a",
        "b",
        "out",
    }


def test_only_the_new_point_of_a_grid_runs(engine: Engine) -> None:
    cross(engine)
    engine.wait("p")
    engine.put("b", {"/y": b"why"})
    job = engine.wait("p")
    assert (job.data_total, job.data_processed, job.data_skipped) == (4, 2, 2)
    assert engine.runs() == ["1-x", "1-y", "2-x", "2-y"]
    assert set(engine.files("p")) == {"/1-x", "/2-x", "/1-y", "/2-y"}
    states = [d.state for d in engine.client.pps.list_datum(job=job.job)]
    assert sorted(states) == sorted([pps.DatumState.SKIPPED] * 2 + [pps.DatumState.SUCCESS] * 2)


def test_a_datum_that_goes_takes_its_files_and_comes_back_without_running(engine: Engine) -> None:
    cross(engine)
    engine.wait("p")
    with engine.client.pfs.commit(branch=pfs.Branch.from_uri("a@master")) as commit:
        commit.delete_file(path="/2")
    engine.wait("p")
    assert set(engine.files("p")) == {"/1-x"}
    engine.put("a", {"/2": b"two"})
    job = engine.wait("p")
    assert (job.data_processed, job.data_skipped) == (0, 2)
    assert engine.runs() == ["1-x", "2-x"]
    assert set(engine.files("p")) == {"/1-x", "/2-x"}
    with engine.client.pfs.commit(branch=pfs.Branch.from_uri("a@master")) as commit:
        commit.delete_file(path="/1")
        commit.put_file_from_bytes(path="/2", data=b"zwei")
        commit.put_file_from_bytes(path="/3", data=b"three")
    job = engine.wait("p")
    assert engine.files("p") == {"/2-x": b"zweiex", "/3-x": b"threeex"}
    meta = pfs.Commit(repo=pfs.Repo(name="p", type="meta"), id=job.job.id)
    told = [one.file.path for one in engine.client.pfs.glob_file(commit=meta, pattern="/*/*")]
    ids = [datum.datum.id for datum in engine.client.pps.list_datum(job=job.job)]
    assert told == [f"/{top}/{id}/" for top in ("meta", "pfs") for id in ids]


def test_an_update_skips_what_is_done_and_reprocess_does_not(engine: Engine) -> None:
    cross(engine)
    engine.wait("p")
    engine.pipeline("p", MODEL + "\n# other code", {"a": "/*", "b": "/*"}, update=True)
    job = engine.wait("p")
    assert job.pipeline_version == 2
    assert (job.data_processed, job.data_skipped) == (0, 2)
    engine.pipeline("p", MODEL, {"a": "/*", "b": "/*"}, update=True, reprocess=True)
    job = engine.wait("p")
    assert (job.data_processed, job.data_skipped) == (2, 0)
    assert len(engine.runs()) == 4
    with pytest.raises(grpc.RpcError) as refused:
        engine.pipeline("p", MODEL, {"a": "/*", "b": "/*"})
    assert refused.value.code() == grpc.StatusCode.ALREADY_EXISTS


def test_every_job_never_skips_and_rerun_makes_a_job(engine: Engine) -> None:
    pipeline = cross(engine, reprocess_spec="every_job")
    engine.wait("p")
    engine.client.pps.rerun_pipeline(pipeline=pipeline)
    assert engine.wait("p").data_processed == 2
    assert len(engine.runs()) == 4


def test_an_empty_input_makes_a_job_without_datums(engine: Engine) -> None:
    engine.repo("a")
    engine.pipeline("p", "true", {"a": "/*"})
    job = engine.wait("p")
    assert (job.state, job.data_total) == (pps.JobState.JOB_SUCCESS, 0)
    assert engine.files("p") == {}


def test_a_chain_runs_downstream_on_what_upstream_made(engine: Engine) -> None:
    engine.repo("a", {"/1": b"one"})
    engine.pipeline("p", "cat $a > $OUT/up", {"a": "/*"})
    engine.pipeline("q", "cat $p > $OUT/down", {"p": "/*"})
    engine.wait("q")
    id = engine.put("a", {"/1": b"two"})
    jobs = list(engine.client.pps.inspect_job_set(job_set=pps.JobSet(id=id), wait=True))
    assert [(j.job.pipeline.name, j.state) for j in jobs] == [
        ("p", pps.JobState.JOB_SUCCESS),
        ("q", pps.JobState.JOB_SUCCESS),
    ]
    assert engine.files("q") == {"/down": b"two"}


def test_lists_and_subscriptions(engine: Engine) -> None:
    pipeline = cross(engine)
    first = engine.wait("p")
    id = engine.put("a", {"/3": b"three"})
    engine.wait("p", id)
    assert [j.job.id for j in engine.client.pps.list_job(pipeline=pipeline)] == [id, first.job.id]
    assert not next(iter(engine.client.pps.list_job(pipeline=pipeline))).is_set("details")
    of_commit = engine.client.pps.list_job(input_commit=[pfs.Commit.from_uri(f"a@{id}")])
    assert [j.job.id for j in of_commit] == [id]
    assert [s.job_set.id for s in engine.client.pps.list_job_set()] == [id, first.job.id]
    assert [p.pipeline.name for p in engine.client.pps.list_pipeline()] == ["p"]
    stream = engine.client.pps.subscribe_job(pipeline=pipeline)
    # A job that has not ended (its input is open) is sent at once.
    open_commit = engine.client.pfs.start_commit(branch=pfs.Branch.from_uri("a@master"))
    assert next(iter(stream)).job.id == open_commit.id
    engine.client.pfs.finish_commit(commit=pfs.Commit.from_uri(f"a@{open_commit.id}"))


def test_deleting(engine: Engine) -> None:
    pipeline = cross(engine)
    job = engine.wait("p")
    engine.client.pps.delete_job(job=job.job)
    assert not engine.client.pps.job_exists(job.job)
    with pytest.raises(grpc.RpcError, match="cannot delete a repo associated with a pipeline"):
        engine.client.pfs.delete_repo(repo=pfs.Repo(name="p", type="user"))
    engine.client.pps.delete_pipeline(pipeline=pipeline)
    assert not engine.client.pps.pipeline_exists(pipeline)
    assert not engine.client.pfs.repo_exists(pfs.Repo(name="p", type="user"))
    # A namesake starts from nothing.
    engine.pipeline("p", MODEL, {"a": "/*", "b": "/*"})
    assert engine.wait("p").data_processed == 2
    engine.client.pps.delete_all()
    assert list(engine.client.pps.list_pipeline()) == []


def test_missing_things_are_not_found(engine: Engine) -> None:
    assert not engine.client.pps.pipeline_exists(pps.Pipeline(name="nope"))
    assert not engine.client.pps.job_exists(pps.Job(pipeline=pps.Pipeline(name="nope"), id="0" * 32))
    with pytest.raises(grpc.RpcError) as refused:
        engine.pipeline("p", "true", {"nope": "/*"})
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_dry_run_tells_the_effective_spec_and_does_nothing(engine: Engine) -> None:
    engine.repo("a")
    spec = {
        "pipeline": {"name": "p"},
        "transform": {"cmd": ["true"]},
        "input": {"pfs": {"repo": "a", "glob": "/*"}},
    }
    answer = engine.client.pps.create_pipeline_v2(create_pipeline_request_json=json.dumps(spec), dry_run=True)
    assert json.loads(answer.effective_create_pipeline_request_json)["datumTries"] == "3"
    assert not engine.client.pps.pipeline_exists(pps.Pipeline(name="p"))
    engine.client.pps.create_pipeline_v2(create_pipeline_request_json=json.dumps(spec))
    assert engine.wait("p").state == pps.JobState.JOB_SUCCESS


def test_datums_of_an_input_can_be_counted_without_a_pipeline(engine: Engine) -> None:
    engine.repo("a", {"/1": b"", "/2": b"", "/3": b""})
    node = pps.Input(pfs=pps.PfsInput(repo="a", glob="/*"))
    assert len(list(engine.client.pps.list_datum(input=node))) == 3
    assert len(next(engine.client.pps.generate_datums(node, 2))) == 2


def test_recipe_a_makes_one_job_per_pipeline(engine: Engine) -> None:
    for name in ("a", "b"):
        engine.repo(name)
    spec = {
        "pipeline": {"name": "p"},
        "transform": {"cmd": ["sh"], "stdin": ["cat $a $b > ${PACH_PFS:-/pfs}/out/both"]},
        "input": {"cross": [{"pfs": {"repo": r, "glob": "/*"}} for r in ("a", "b")]},
    }
    client = engine.client
    with client.transaction.transaction() as t:
        commits = [client.pfs.start_commit(branch=pfs.Branch.from_uri(f"{r}@master")) for r in ("a", "b")]
        client.pps.create_pipeline_v2(create_pipeline_request_json=json.dumps(spec), update=True)
    assert {c.id for c in commits} == {t.id}
    jobs = list(client.pps.list_job(pipeline=pps.Pipeline(name="p")))
    assert [(j.job.id, j.state in (pps.JobState.JOB_CREATED, pps.JobState.JOB_STARTING)) for j in jobs] == [
        (t.id, True)
    ]
    for commit, name in zip(commits, ("a", "b"), strict=True):
        where = pfs.Commit(repo=pfs.Repo(name=name, type="user"), id=commit.id)
        requests = [
            pfs.ModifyFileRequest(set_commit=where),
            pfs.ModifyFileRequest(add_file=pfs.AddFile(path="/f", raw=name.encode())),
        ]
        client.pfs.modify_file(iter(requests))
        client.pfs.finish_commit(commit=where)
    assert engine.wait("p", t.id).state == pps.JobState.JOB_SUCCESS
    assert engine.files("p") == {"/both": b"ab"}
    assert len(list(client.pps.list_job(pipeline=pps.Pipeline(name="p"), history=-1))) == 1
    # The same again, now as an update: still one more job.
    with client.transaction.transaction() as t:
        client.pfs.start_commit(branch=pfs.Branch.from_uri("a@master"))
        client.pps.create_pipeline_v2(create_pipeline_request_json=json.dumps(spec), update=True)
    client.pfs.finish_commit(commit=pfs.Commit(repo=pfs.Repo(name="a", type="user"), id=t.id))
    assert engine.wait("p", t.id).data_skipped == 1
    assert len(list(client.pps.list_job(pipeline=pps.Pipeline(name="p"), history=-1))) == 2


def test_a_group_delivers_all_its_files_to_one_datum(engine: Engine) -> None:
    engine.repo("a", {"/x-1": b"1", "/x-2": b"2", "/y-1": b"3"})
    node = pps.Input(group=[pps.Input(pfs=pps.PfsInput(repo="a", glob="/(*)-*", group_by="$1"))])
    engine.client.pps.create_pipeline(
        pipeline=pps.Pipeline(name="p"),
        transform=pps.Transform(
            cmd=["sh"],
            stdin=[
                "cd ${PACH_PFS:-/pfs}",
                "cat a/* > out/$PACH_DATUM_a_GROUP_BY",
                "ls a > out/$PACH_DATUM_a_GROUP_BY.names",
            ],
        ),
        input=node,
    )
    assert engine.wait("p").data_processed == 2
    assert engine.files("p") == {"/x": b"12", "/y": b"3", "/x.names": b"x-1\nx-2\n", "/y.names": b"y-1\n"}


def test_datums_get_pachyderms_variables(engine: Engine) -> None:
    id = engine.put("a", {"/d/1": b"1"}) if engine.repo("a") else ""
    engine.pipeline("p", "env > $OUT/env; cat $a/1", {"a": "/*"})
    job = engine.wait("p").job
    (datum,) = engine.client.pps.list_datum(job=job)
    env = dict(line.split("=", 1) for line in engine.files("p")["/env"].decode().splitlines() if "=" in line)
    wanted = {
        "PACH_JOB_ID": job.id,
        "PACH_OUTPUT_COMMIT_ID": job.id,
        "PACH_DATUM_ID": datum.datum.id,
        "PPS_PIPELINE_NAME": "p",
        "PPS_PROJECT_NAME": "default",
        "PACH_IN_WORKER": "true",
        "a_COMMIT": id,
    }
    assert {k: env.get(k) for k in wanted} == wanted
    assert env["a"].rstrip("/").endswith("/a/d")


def test_a_missing_image_shows_at_the_pipeline_and_an_update_helps(engine: Engine) -> None:
    engine.repo("a", {"/1": b"1"})
    pipeline = pps.Pipeline(name="p")
    spec = {"pipeline": pipeline, "input": pps.Input(pfs=pps.PfsInput(repo="a", glob="/"))}
    engine.client.pps.create_pipeline(transform=pps.Transform(cmd=["true"], image="kaos/none:1"), **spec)
    info = eventually(
        lambda: (
            (i := engine.client.pps.inspect_pipeline(pipeline=pipeline)).state
            == pps.PipelineState.PIPELINE_CRASHING
            and i
        ),
        "the pipeline is CRASHING",
    )
    assert "kaos/none:1" in info.reason
    assert engine.last_job("p").state in (pps.JobState.JOB_CREATED, pps.JobState.JOB_STARTING)
    engine.client.pps.create_pipeline(transform=pps.Transform(cmd=["true"]), update=True, **spec)
    assert engine.wait("p").state == pps.JobState.JOB_SUCCESS


def test_defaults_of_the_cluster_reach_new_pipelines(engine: Engine) -> None:
    text = json.dumps({"createPipelineRequest": {"datumTries": 9}})
    engine.client.pps.set_cluster_defaults(cluster_defaults_json=text)
    shown = json.loads(engine.client.pps.get_cluster_defaults().cluster_defaults_json)
    assert shown["createPipelineRequest"]["datumTries"] == 9
    engine.repo("a")
    spec = {
        "pipeline": {"name": "p"},
        "transform": {"cmd": ["true"]},
        "input": {"pfs": {"repo": "a", "glob": "/*"}},
    }
    engine.client.pps.create_pipeline_v2(create_pipeline_request_json=json.dumps(spec))
    info = engine.client.pps.inspect_pipeline(pipeline=pps.Pipeline(name="p"), details=True)
    assert info.details.datum_tries == 9
    with pytest.raises(grpc.RpcError) as refused:
        engine.client.pps.set_cluster_defaults(cluster_defaults_json='{"x": 1}')
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_the_meta_repo_of_a_pipeline_can_be_an_input(engine: Engine) -> None:
    engine.repo("a", {"/1": b"1"})
    engine.pipeline("p", "cat $a > $OUT/x", {"a": "/*"})
    engine.wait("p")
    pipeline = pps.Pipeline(name="q", project=pfs.Project(name="default"))
    engine.client.pps.create_pipeline(
        pipeline=pipeline,
        transform=pps.Transform(cmd=["sh", "-c", 'cat "$m"/meta/*/meta > "$PACH_PFS/out/seen"']),
        input=pps.Input(pfs=pps.PfsInput(name="m", repo="p", repo_type="meta", glob="/")),
        datum_tries=1,
    )
    job = engine.wait("q")
    assert job.state == pps.JobState.JOB_SUCCESS, job.reason
    assert b'"state":"PROCESSED"' in engine.files("q")["/seen"]
    (datum,) = engine.client.pps.list_datum(job=job.job)
    assert datum.data[0].file.commit.repo.type == "meta"


def test_an_output_that_leads_outside_fails_its_datum_and_no_other(engine: Engine) -> None:
    engine.repo("a", {"x": b"x", "y": b"y"})
    engine.pipeline(
        "p",
        'if [ -e "${PACH_PFS}/a/x" ]; then ln -s /etc/passwd $OUT/l; fi; echo fine > $OUT/$$',
        {"a": "/*"},
    )
    info = engine.wait("p")
    assert info.state == pps.JobState.JOB_FAILURE
    failed = [
        datum for datum in engine.client.pps.list_datum(job=info.job) if datum.state == pps.DatumState.FAILED
    ]
    assert [datum.datum.job.id for datum in failed] == [info.job.id]
    lines = [line.message for line in engine.client.pps.get_logs(job=info.job, datum=failed[0].datum)]
    assert any(
        "output refused: /l is a link to /etc/passwd, outside the output folder" in line for line in lines
    )


def test_a_link_to_an_input_is_kept_by_reference(engine: Engine) -> None:
    engine.repo("a", {"b/x": b"x" * 300_000, "b/y": b"y"})
    engine.pipeline("p", 'ln -s "${PACH_PFS}/a" $OUT/all; ln -s "${PACH_PFS}/a/b/y" $OUT/y', {"a": "/"})
    assert engine.wait("p").state == pps.JobState.JOB_SUCCESS
    assert engine.files("p") == {"/all/b/x": b"x" * 300_000, "/all/b/y": b"y", "/y": b"y"}
