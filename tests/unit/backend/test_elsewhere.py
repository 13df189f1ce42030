"""What only the embedded engine has, asked of a pachd that is another one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import grpc
import pytest
from pachyderm_sdk.api import pfs, pps

from kaos_backend.engine.facade.misc import VersionService
from kaos_backend.engine.facade.rpc import Handlers, server_stream
from kaos_backend.engine.facade.server import build_server
from kaos_backend.errors import NeedsEmbeddedEngine
from kaos_backend.pachd.endpoint import Endpoint
from kaos_backend.pachd.sdk import SdkPachd
from kaos_formats import kaos_v1, loglines


class Somewhere:
    """A pachd that is there."""

    def __init__(self, port: int) -> None:
        self._endpoint = Endpoint(f"127.0.0.1:{port}", "secret", 1, embedded=True)

    def current(self) -> Endpoint:
        return self._endpoint

    def ensure(self) -> Endpoint:
        return self._endpoint


@pytest.fixture
def pachd() -> Iterator[SdkPachd]:
    server, port = build_server([VersionService()], "secret")
    server.start()
    yield SdkPachd(Somewhere(port))
    server.stop(grace=0).wait(5)


class Listing:
    """As much of a pachd as lists jobs, the newest first, and carries out a filter."""

    name = "pps_v2.API"

    def __init__(self) -> None:
        self.filters: list[str] = []

    def handlers(self) -> Handlers:
        return {"ListJob": server_stream(self._list, pps.ListJobRequest)}

    def _list(self, request: pps.ListJobRequest, _: grpc.ServicerContext) -> Iterator[pps.JobInfo]:
        self.filters.append(request.jq_filter)
        for number in (2, 1):
            pipeline = pps.Pipeline(name="train", project=pfs.Project(name="default"))
            stats = pps.ProcessStats(process_time=timedelta(seconds=8))
            yield pps.JobInfo(
                job=pps.Job(pipeline=pipeline, id=f"{number}" * 32),
                data_total=9,
                data_processed=3,
                data_recovered=1,
                data_skipped=2,
                stats=stats,
            )


def test_the_queue_is_read_from_the_open_jobs_alone() -> None:
    listing = Listing()
    server, port = build_server([VersionService(), listing], "secret")
    server.start()
    try:
        queue = SdkPachd(Somewhere(port)).queue()
    finally:
        server.stop(grace=0).wait(5)
    assert listing.filters == ["select(.finished == null)"]
    assert [job.id[0] for job in queue.jobs] == ["1", "2"]
    job = queue.jobs[0]
    assert (job.total, job.done, job.failed, job.ran, job.spent_s) == (9, 6, 1, 4, 8.0)
    assert (job.usual_s, queue.devices) == (None, None)


def test_a_check_says_that_it_needs_the_embedded_engine(pachd: SdkPachd) -> None:
    with pytest.raises(NeedsEmbeddedEngine, match="Check") as told:
        list(pachd.check(repair=False))
    assert "KAOS_ENGINE_ADDRESS" in told.value.hint


def test_space_is_the_affair_of_the_embedded_engine(pachd: SdkPachd) -> None:
    with pytest.raises(NeedsEmbeddedEngine, match="Collect"):
        list(pachd.collect(dry_run=True))
    with pytest.raises(NeedsEmbeddedEngine, match="DiskUse"):
        pachd.disk_use()


def test_nothing_is_known_to_be_damaged(pachd: SdkPachd) -> None:
    assert pachd.damaged("default", "data", "master", "/") == []


def test_one_trial_cannot_be_stopped(pachd: SdkPachd) -> None:
    with pytest.raises(NeedsEmbeddedEngine):
        pachd.stop_datum("default", "train", "0" * 32, "/x.json", "why")


def test_an_older_job_cannot_be_run_again(pachd: SdkPachd) -> None:
    with pytest.raises(NeedsEmbeddedEngine):
        pachd.rerun_job("default", ["train"], "0" * 32, only_failed=False)


def test_nothing_is_paused(pachd: SdkPachd) -> None:
    assert not pachd.paused().everywhere
    with pytest.raises(NeedsEmbeddedEngine):
        pachd.pause("default", paused=True)


class Talking:
    """As much of a pachd as has logs; and of one that would have the backend's own files read to it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def handlers(self) -> Handlers:
        if self.name == kaos_v1.SERVICE:
            return {"LogRanges": server_stream(self._name_a_file, pps.GetLogsRequest)}
        return {"GetLogs": server_stream(self._get, pps.GetLogsRequest)}

    def _name_a_file(self, _: pps.GetLogsRequest, __: grpc.ServicerContext) -> Iterator[bytes]:
        yield bytes(kaos_v1.LogRange(datum="d", file=__file__.encode(), to=100))

    def _get(self, request: pps.GetLogsRequest, _: grpc.ServicerContext) -> Iterator[pps.LogMessage]:
        for number in range(5 if request.follow else 3):
            yield pps.LogMessage(datum_id="d", user=True, message=f"line {number}")


@pytest.mark.parametrize(("follow", "tail"), [(False, 0), (True, 0), (True, 2)])
def test_logs_are_read_line_by_line_and_no_file_that_another_names(follow: bool, tail: int) -> None:
    server, port = build_server([VersionService(), Talking(kaos_v1.SERVICE), Talking("pps_v2.API")], "secret")
    server.start()
    elsewhere = Somewhere(port)
    elsewhere._endpoint = Endpoint(f"grpc://127.0.0.1:{port}", "secret", 1, embedded=False)
    try:
        blocks = list(SdkPachd(elsewhere).logs("default", "train", "0" * 32, follow=follow, tail=tail))
    finally:
        server.stop(grace=0).wait(5)
    # What was there when a follow of the last lines began ends with a block without any.
    said = [[line.text for line in loglines.lines(block.data)] for block in blocks]
    expected = [[f"line {number}"] for number in range(5 if follow else 3)]
    assert said == ([*expected[:3], [], *expected[3:]] if tail else expected)


def test_nothing_runs_in_the_foreground(pachd: SdkPachd) -> None:
    with pytest.raises(NeedsEmbeddedEngine):
        list(pachd.foreground(kaos_v1.ForegroundOpen(project="default")))


class Jobs:
    """As much of a pachd as lists jobs and datums."""

    name = "pps_v2.API"

    def handlers(self) -> Handlers:
        return {
            "ListJob": server_stream(self._jobs, pps.ListJobRequest),
            "ListDatum": server_stream(self._datums, pps.ListDatumRequest),
        }

    def _jobs(self, request: pps.ListJobRequest, _: grpc.ServicerContext) -> Iterator[pps.JobInfo]:
        for project, name, id in (
            ("a", "train", "b2"), ("a", "build", "b2"), ("a", "train", "b1"), ("b", "train", "c1"),
            ("b", "other", "c2"),
        ):  # fmt: skip
            if project in {one.name for one in request.projects} or not request.projects:
                pipeline = pps.Pipeline(name=name, project=pfs.Project(name=project))
                yield pps.JobInfo(job=pps.Job(pipeline=pipeline, id=id * 16))

    def _datums(self, request: pps.ListDatumRequest, _: grpc.ServicerContext) -> Iterator[pps.DatumInfo]:
        for n in range(3):
            file = pfs.File(commit=pfs.Commit(repo=pfs.Repo(name="hyper")), path=f"/{n}.json")
            yield pps.DatumInfo(
                datum=pps.Datum(id=f"d{n}", job=request.job),
                state=pps.DatumState.SUCCESS,
                data=[pfs.FileInfo(file=file)],
            )


def test_jobs_and_datums_are_listed_as_pachyderm_does() -> None:
    server, port = build_server([VersionService(), Jobs()], "secret")
    server.start()
    try:
        pachd = SdkPachd(Somewhere(port))
        assert pachd.job_counts(["build", "train"]) == {"a": 2, "b": 1}
        assert pachd.job_ids("a", ["build", "train"]) == ["b2" * 16, "b1" * 16]
        assert pachd.job_ids("a", ["build", "train"], "b1") == ["b1" * 16]
        # What ended when nobody knows: more may be told than is new.
        assert [one.id for one in pachd.datums("a", "train", "b2" * 16, since=2)] == ["d0", "d1", "d2"]
        (one,) = pachd.datums("a", "train", "b2" * 16, path="/1.json")
        assert (one.id, one.ended, one.bytes, one.output) == ("d1", 0, None, "")
    finally:
        server.stop(grace=0).wait(5)
