"""What is encoded by hand is what the SDK's classes read."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from pachyderm_sdk.api import pfs, pps

from kaos_backend.engine.facade.pps.convert import datum_info_encoder
from kaos_backend.engine.jobs.db.rows import DatumRow, Job, JobKey, PipelineKey
from kaos_backend.engine.jobs.schedule.states import DatumState, JobState
from kaos_backend.engine.jobs.spec.plan import File

JOB = Job(
    1, JobKey(PipelineKey("p", "train"), "j" * 32), 1, 1, JobState.SUCCESS, "", *[0] * 10, None, None, None
)
NUMBERS = st.integers(0, 2**50)
FILES = st.builds(
    File,
    name=st.just("data"),
    project=st.just("p"),
    repo=st.sampled_from(["data", "hyper"]),
    branch=st.just("master"),
    commit=st.sampled_from(["c" * 32, "d" * 32]),
    path=st.sampled_from(["/", "/a", "/folder/", "/é"]),
    hash=st.binary(min_size=32, max_size=32),
    size_bytes=NUMBERS,
)


@given(st.sampled_from(list(DatumState)), NUMBERS, NUMBERS, NUMBERS, st.lists(FILES, max_size=4))
def test_as_the_sdk_reads_it(
    state: DatumState, process_us: int, down: int, up: int, files: list[File]
) -> None:
    row = DatumRow(
        "d" * 64, "h", 0, state, JOB.key.id, None, "", 1, process_us, down, up, None, None, tuple(files)
    )
    read = pps.DatumInfo.FromString(datum_info_encoder(JOB, "image:1")(row))
    pipeline = pps.Pipeline(name="train", project=pfs.Project(name="p"))
    assert read.datum == pps.Datum(job=pps.Job(pipeline=pipeline, id=JOB.key.id), id=row.id)
    assert (int(read.state), read.image_id) == (int(state), "image:1")
    assert read.stats == pps.ProcessStats(
        process_time=timedelta(microseconds=process_us), download_bytes=down, upload_bytes=up
    )
    meta = read.pfs_state
    assert (meta.commit.repo.name, meta.commit.repo.type, meta.commit.id) == ("train", "meta", JOB.key.id)
    assert meta.path == f"/pfs/{row.id}"
    for found, file in zip(read.data, files, strict=True):
        where = found.file
        assert (where.commit.repo.name, where.commit.id, where.path) == (file.repo, file.commit, file.path)
        assert where.datum == "default"
        assert (found.size_bytes, found.hash) == (file.size_bytes, file.hash)
        assert found.file_type == (pfs.FileType.DIR if file.is_dir else pfs.FileType.FILE)
