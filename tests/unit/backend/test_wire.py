from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from pachyderm_sdk.api import pfs, pps

from kaos_backend.domain.models import AddFile, CopyFile, DeleteFile
from kaos_backend.pachd import wire
from kaos_formats.loglines import Line, lines

TEXT = st.text("ab/é.", max_size=200)


def repo(project: str, name: str) -> pfs.Repo:
    return pfs.Repo(name=name, type="user", project=pfs.Project(name=project))


@given(TEXT, st.binary(max_size=300))
def test_added_files_are_what_the_sdk_writes(path: str, data: bytes) -> None:
    expected = pfs.ModifyFileRequest(add_file=pfs.AddFile(path=path, raw=data))
    assert bytes(wire.encode("p", AddFile(path, data))) == bytes(expected)


@given(TEXT)
def test_deleted_files(path: str) -> None:
    read = pfs.ModifyFileRequest.FromString(bytes(wire.encode("p", DeleteFile(path))))
    assert read.delete_file.path == path


@given(TEXT, TEXT)
def test_copied_files(src: str, dst: str) -> None:
    read = pfs.ModifyFileRequest.FromString(bytes(wire.encode("p", CopyFile(dst, "data", "c" * 32, src))))
    commit = pfs.Commit(repo=repo("p", "data"), id="c" * 32)
    assert read.copy_file == pfs.CopyFile(dst=dst, src=pfs.File(commit=commit, path=src))


def test_set_commit() -> None:
    read = pfs.ModifyFileRequest.FromString(bytes(wire.set_commit("p", "source", "c" * 32)))
    assert read.set_commit == pfs.Commit(repo=repo("p", "source"), id="c" * 32)


def test_large_data_has_a_long_length() -> None:
    data = bytes(5 * 1024 * 1024)
    read = pfs.ModifyFileRequest.FromString(bytes(wire.encode("p", AddFile("/x", data))))
    assert read.add_file.raw == data


STATES = st.sampled_from(list(pps.DatumState))
FILES = st.lists(st.tuples(TEXT, TEXT), max_size=4)


@given(TEXT, TEXT, STATES, FILES, st.integers(0, 10**13))
def test_datums_are_read_as_the_sdk_writes_them(
    datum: str, job: str, state: pps.DatumState, files: list[tuple[str, str]], us: int
) -> None:
    of = pps.Job(pipeline=pps.Pipeline(name="train", project=pfs.Project(name="p")), id=job)
    info = pps.DatumInfo(
        datum=pps.Datum(job=of, id=datum),
        state=state,
        stats=pps.ProcessStats(
            download_time=timedelta(seconds=1), process_time=timedelta(microseconds=us), upload_bytes=3
        ),
        data=[
            pfs.FileInfo(
                file=pfs.File(commit=pfs.Commit(repo=repo("p", name), id="c" * 32), path=path),
                file_type=pfs.FileType.DIR,
                size_bytes=7,
                hash=b"h" * 32,
            )
            for name, path in files
        ],
        image_id="i",
    )
    read = wire.datum(bytes(info))
    assert (read.id, read.job, read.state, list(read.inputs)) == (datum, job, state.name.lower(), files)
    assert read.image == "i"
    if state in (pps.DatumState.UNKNOWN, pps.DatumState.STARTING):
        assert read.seconds is None
    else:
        assert read.seconds == us / 1e6


@given(st.binary(max_size=60))
def test_a_damaged_datum_is_an_error(message: bytes) -> None:
    with contextlib.suppress(ValueError):
        wire.datum(message)


@given(TEXT, TEXT, st.lists(TEXT, max_size=3), st.booleans(), st.integers(1, 2 * 10**15))
def test_lines_of_logs_are_read_as_the_sdk_writes_them(
    datum: str, said: str, paths: list[str], user: bool, us: int
) -> None:
    ts = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=us)
    message = pps.LogMessage(
        project_name="p",
        pipeline_name="train",
        job_id="j",
        datum_id=datum,
        master=not datum,
        data=[pps.InputFile(path=path, hash=b"h") for path in paths],
        user=user,
        ts=ts,
        message=said,
    )
    read = wire.log_message(bytes(message))
    assert (read.datum, read.paths, read.at, read.to) == (datum, tuple(paths), None, None)
    assert list(lines(read.data)) == [Line(us, user, text) for text in said.split("\n")]
