"""Datums: their lists, their states, what they are given and what they leave."""

from __future__ import annotations

import base64
import json
from datetime import timedelta

import pytest
from pachyderm_sdk.api import pfs, pps

from tests.parity.pachd import COPY, UNKNOWN, Pachd, eventually, file, refused

pytestmark = pytest.mark.workers("waits for jobs")

PICKY = (
    'if grep -q bad $data; then echo half > $OUT/half; echo "tried $(basename $data)"; exit 7; fi; ' + COPY
)
State = pps.DatumState


@pytest.fixture(autouse=True)
def data(pachd: Pachd) -> None:
    pachd.repo("data", {"/1": b"one", "/2": b"two"})


def states(pachd: Pachd, job: pps.Job) -> dict[str, pps.DatumState]:
    """path of its one file → state."""
    return {datum.data[0].file.path: datum.state for datum in pachd.client.pps.list_datum(job=job)}


def test_the_datums_of_a_job(pachd: Pachd) -> None:
    """§14: ListDatum by id, with the files each one had; the id is 64 hex digits (§11.3)."""
    job = pachd.succeeded(pachd.pipeline("p", COPY, {"data": "/*"})).job
    datums = list(pachd.client.pps.list_datum(job=job))
    assert {datum.data[0].file.path: datum.state for datum in datums} == {
        "/1": State.SUCCESS,
        "/2": State.SUCCESS,
    }
    assert all(len(datum.datum.id) == 64 and datum.datum.job.id == job.id for datum in datums)
    one = pachd.client.pps.inspect_datum(datum=datums[0].datum)
    assert (one.datum.id, one.state) == (datums[0].datum.id, State.SUCCESS)


def test_a_datum_that_is_not(pachd: Pachd) -> None:
    """§14: InspectDatum of an unknown one."""
    job = pachd.succeeded(pachd.pipeline("p", COPY, {"data": "/*"})).job
    with refused(UNKNOWN, "not found in job"):
        pachd.client.pps.inspect_datum(datum=pps.Datum(job=job, id="0" * 64))


def test_skipped_datums_are_listed(pachd: Pachd) -> None:
    """§14: as SKIPPED, under the same id (§11.3)."""
    pipeline = pachd.pipeline("p", COPY, {"data": "/*"})
    before = {datum.datum.id for datum in pachd.client.pps.list_datum(job=pachd.succeeded(pipeline).job)}
    job = pachd.succeeded(pipeline, pachd.put("data", {"/3": b""}).id).job
    assert states(pachd, job) == {"/1": State.SKIPPED, "/2": State.SKIPPED, "/3": State.SUCCESS}
    assert before < {datum.datum.id for datum in pachd.client.pps.list_datum(job=job)}


def test_datums_by_state(pachd: Pachd) -> None:
    """§14: the filter of ListDatum."""
    pachd.put("data", {"/2": b"bad"})
    job = pachd.ended(pachd.pipeline("p", PICKY, {"data": "/*"})).job
    failed = pps.ListDatumRequestFilter(state=[State.FAILED])
    (datum,) = pachd.client.pps.list_datum(job=job, filter=failed)
    assert datum.data[0].file.path == "/2"


def test_pages_of_datums(pachd: Pachd) -> None:
    """§14: the marker, a datum's id, is excluded."""
    job = pachd.succeeded(pachd.pipeline("p", COPY, {"data": "/*"})).job
    every = [datum.datum.id for datum in pachd.client.pps.list_datum(job=job)]
    (first,) = pachd.client.pps.list_datum(job=job, number=1)
    (second,) = pachd.client.pps.list_datum(job=job, number=5, pagination_marker=first.datum.id)
    assert [first.datum.id, second.datum.id] == every


def test_a_job_and_an_input_are_not_both_asked_for(pachd: Pachd) -> None:
    """§14: `cannot specify both job and input`."""
    job = pachd.succeeded(pachd.pipeline("p", COPY, {"data": "/*"})).job
    with refused(UNKNOWN, "cannot specify both job and input"):
        list(pachd.client.pps.list_datum(job=job, input=pachd.input("data", "/*")))


def test_a_failing_datum_is_tried_as_often_as_asked(pachd: Pachd) -> None:
    """§10.3: datum_tries is the number of attempts in all."""
    pachd.put("data", {"/2": b"bad"})
    pipeline = pachd.pipeline("p", PICKY, {"data": "/*"}, datum_tries=3)
    job = pachd.ended(pipeline)
    assert job.state == pps.JobState.JOB_FAILURE
    assert list(pachd.said(pipeline=pipeline, job=job.job)).count("tried 2") == 3


def test_err_cmd_recovers(pachd: Pachd) -> None:
    """§13: the job succeeds without the output of that datum."""
    pachd.put("data", {"/2": b"bad"})
    job = pachd.succeeded(pachd.pipeline("p", PICKY, {"data": "/*"}, err=True))
    assert (job.data_processed, job.data_recovered, job.data_failed) == (1, 1, 0)
    assert states(pachd, job.job) == {"/1": State.SUCCESS, "/2": State.RECOVERED}
    assert set(pachd.files(pachd.commit("p"))) == {"/1"}


def test_what_was_recovered_is_tried_in_the_next_job(pachd: Pachd) -> None:
    """§11.4: RECOVERED is not skipped."""
    pachd.put("data", {"/2": b"bad"})
    pipeline = pachd.pipeline("p", PICKY, {"data": "/*"}, err=True)
    pachd.succeeded(pipeline)
    job = pachd.succeeded(pipeline, pachd.put("data", {"/3": b""}).id)
    assert (job.data_processed, job.data_skipped, job.data_recovered) == (1, 1, 1)


def test_err_cmd_that_fails_recovers_nothing(pachd: Pachd) -> None:
    """§13: the datum and the job fail."""
    pachd.put("data", {"/2": b"bad"})
    pipeline = pps.Pipeline(name="p", project=pachd.project)
    pachd.client.pps.create_pipeline(
        pipeline=pipeline,
        transform=pps.Transform(
            image=pachd.image, cmd=["sh", "-c", "exit 1"], err_cmd=["sh", "-c", "exit 1"]
        ),
        input=pachd.input("data", "/2"),
        datum_tries=1,
    )
    job = pachd.ended(pipeline)
    assert (job.state, job.data_failed) == (pps.JobState.JOB_FAILURE, 1)


def test_exit_codes_that_count_as_success(pachd: Pachd) -> None:
    """§10.3: accept_return_code."""
    pipeline = pachd.pipeline("p", COPY + "; exit 7", {"data": "/*"}, transform={"accept_return_code": [7]})
    assert pachd.succeeded(pipeline).data_processed == 2


def test_a_datum_over_its_time_fails_the_job(pachd: Pachd) -> None:
    """§13: err_cmd has no time either."""
    pipeline = pachd.pipeline("p", "sleep 600", {"data": "/1"}, err=True, datum_timeout=timedelta(seconds=1))
    job = pachd.ended(pipeline)
    assert (job.state, job.data_failed, job.data_recovered) == (pps.JobState.JOB_FAILURE, 1, 0)


def test_what_a_failed_datum_left_can_be_fetched(pachd: Pachd) -> None:
    """§11.5: in the meta repo, at DatumInfo.pfs_state."""
    pachd.put("data", {"/2": b"bad"})
    job = pachd.succeeded(pachd.pipeline("p", PICKY, {"data": "/*"}, err=True)).job
    recovered = pps.ListDatumRequestFilter(state=[State.RECOVERED])
    (datum,) = pachd.client.pps.list_datum(job=job, filter=recovered)
    meta = pachd.commit("p", job.id, type="meta")
    assert pachd.read(meta, f"{datum.pfs_state.path.rstrip('/')}/out/half") == b"half\n"


def test_the_meta_commit_records_a_datum(pachd: Pachd) -> None:
    """§11.5: `/meta/<datum id>/meta`, and what it read and wrote beside it."""
    job = pachd.succeeded(pachd.pipeline("p", COPY, {"data": "/1"})).job
    (datum,) = pachd.client.pps.list_datum(job=job)
    meta = pachd.commit("p", job.id, type="meta")
    record = json.loads(pachd.read(meta, f"/meta/{datum.datum.id}/meta"))
    assert record["job"]["id"] == job.id
    assert [one["name"] for one in record["inputs"]] == ["data"]
    below = datum.pfs_state.path.rstrip("/")
    assert pachd.read(meta, f"{below}/data/1") == b"one"
    assert pachd.read(meta, f"{below}/out/1") == b"one"


def test_the_environment_of_a_datum(pachd: Pachd) -> None:
    """§13: its input's path and commit, and the ids of datum, job and pipeline."""
    pipeline = pachd.pipeline("p", "env > $OUT/env", {"data": "/1"}, transform={"env": {"MINE": "a b"}})
    job = pachd.succeeded(pipeline).job
    (datum,) = pachd.client.pps.list_datum(job=job)
    lines = pachd.read(pachd.commit("p"), "/env").decode().splitlines()
    env = dict(line.split("=", 1) for line in lines if "=" in line)
    wanted = {
        "MINE": "a b",
        "PACH_DATUM_ID": datum.datum.id,
        "PACH_JOB_ID": job.id,
        "PACH_OUTPUT_COMMIT_ID": job.id,
        "PPS_PIPELINE_NAME": "p",
        "PPS_PROJECT_NAME": pachd.project.name,
        "PACH_IN_WORKER": "true",
        "data_COMMIT": pachd.head(pachd.branch("data")).id,
    }
    assert {name: env.get(name) for name in wanted} == wanted
    assert env["data"].endswith("/data/1")


def test_lines_on_standard_input(pachd: Pachd) -> None:
    """§10.3: `stdin` is joined with newlines; cmd need not read it to its end (§13)."""
    pipeline = pps.Pipeline(name="p", project=pachd.project)
    pachd.client.pps.create_pipeline(
        pipeline=pipeline,
        transform=pps.Transform(
            image=pachd.image,
            cmd=["sh"],
            stdin=["echo one > ${PACH_PFS:-/pfs}/out/f", "exit 0", *(["# not read"] * 10_000)],
        ),
        input=pachd.input("data", "/1"),
    )
    pachd.succeeded(pipeline)
    assert pachd.files(pachd.commit("p")) == {"/f": b"one\n"}


def test_a_directory_comes_with_all_that_is_in_it(pachd: Pachd) -> None:
    """§11.2: a datum that matched a directory; §13: at its path in the repo."""
    pachd.put("data", {"/d/e/f": b"deep", "/d/g": b"flat"})
    pipeline = pachd.pipeline("p", "cat $data/e/f $data/g > $OUT/both", {"data": "/d"})
    pachd.succeeded(pipeline)
    assert pachd.files(pachd.commit("p")) == {"/both": b"deepflat"}


def test_directories_without_files_vanish(pachd: Pachd) -> None:
    """§13: output is files with their relative paths."""
    pipeline = pachd.pipeline("p", "mkdir -p $OUT/a/b $OUT/c; echo 1 > $OUT/a/b/f", {"data": "/1"})
    pachd.succeeded(pipeline)
    commit = pachd.commit("p")
    assert pachd.files(commit) == {"/a/b/f": b"1\n"}
    assert not pachd.client.pfs.path_exists(file(commit, "/c"))


def test_a_link_in_the_output_becomes_what_it_leads_to(pachd: Pachd) -> None:
    """§13: an absolute link to an input uploads its content."""
    pipeline = pachd.pipeline("p", "ln -s $data $OUT/linked", {"data": "/1"})
    pachd.succeeded(pipeline)
    assert pachd.files(pachd.commit("p")) == {"/linked": b"one"}


def test_datums_without_a_pipeline(pachd: Pachd) -> None:
    """§14: ListDatum and CreateDatum of an input."""
    node = pachd.input("data", "/*")
    assert {datum.data[0].file.path for datum in pachd.client.pps.list_datum(input=node)} == {"/1", "/2"}
    assert len(next(pachd.client.pps.generate_datums(node, 1))) == 1


def test_restarting_a_datum_that_does_not_run(pachd: Pachd) -> None:
    """§14: `datum matching filter … could not be found`."""
    pipeline = pachd.pipeline("p", "sleep 600", {"data": "/1"})
    job = pachd.running(pipeline).job
    with refused(UNKNOWN, "could not be found for job ID"):
        pachd.client.pps.restart_datum(job=job, data_filters=["/none"])


def test_the_output_of_a_pipeline_is_tagged(pachd: Pachd) -> None:
    """§7.1: with the datum's id, which a read may ask for (§7.3)."""
    job = pachd.succeeded(pachd.pipeline("p", COPY, {"data": "/1"})).job
    (datum,) = pachd.client.pps.list_datum(job=job)
    info = pachd.client.pfs.inspect_file(file=file(pachd.commit("p"), "/1"))
    assert info.file.datum == datum.datum.id
    tagged = pfs.File(commit=pachd.commit("p"), path="/1", datum=datum.datum.id)
    assert b"".join(part.value for part in pachd.client.pfs.get_file(file=tagged)) == b"one"


def test_a_running_datum_is_restarted(pachd: Pachd) -> None:
    """§14: RestartDatum by a path, or by the hash of a file in hex or base64."""
    pachd.repo("b", {"/1": b""})
    pipeline = pachd.pipeline("q", "echo begun; sleep 600", {"b": "/*"})
    job = pachd.running(pipeline).job
    hash_ = pachd.client.pfs.inspect_file(file=file(pachd.commit("b"), "/1")).hash

    def begun() -> int:
        return list(pachd.said(pipeline=pipeline, job=job)).count("begun")

    for number, name in enumerate(["/1", hash_.hex(), base64.b64encode(hash_).decode()], 1):
        eventually(lambda number=number: begun() == number, "the datum begins")
        pachd.client.pps.restart_datum(job=job, data_filters=[name])
    eventually(lambda: begun() == 4, "it begins once more")
    pachd.client.pps.stop_job(job=job)
