"""A full disk holds a finished trial up; it does not lose it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaos_backend.engine.jobs.db import tables
from kaos_backend.engine.jobs.db.rows import MIGRATIONS, Job, JobKey, PipelineKey
from kaos_backend.engine.jobs.schedule.states import TERMINAL_JOBS, DatumState, JobState
from kaos_backend.engine.jobs.service import Jobs
from kaos_backend.engine.store.bytes.disk import Disk
from kaos_backend.engine.store.model import BranchKey, FileSource, RepoKey
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.workers.process.runtime import ProcessRuntime
from kaos_formats.endings import Code, code_of
from tests.integration.engine.conftest import MACHINE
from tests.support.files import ingest
from tests.support.waiting import eventually

MIB = 1 << 20


class FillingDisk(Disk):
    """Out of room while `full` is set; `refused` says that somebody has met that."""

    def __init__(self) -> None:
        self.full = threading.Event()
        self.refused = threading.Event()

    def write(self, fd: int, data: bytes | bytearray | memoryview) -> None:
        if self.full.is_set():
            self.refused.set()
            raise self.explain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), None)
        super().write(fd, data)


def test_an_output_is_stored_as_soon_as_there_is_room(tmp_path: Path) -> None:
    data, disk = tmp_path / "engine", FillingDisk()
    store = Store.open(data, migrations=MIGRATIONS, disk=disk)
    jobs = Jobs(store, ProcessRuntime(data, isolate=False), MACHINE, data)
    jobs.start()
    try:
        source = tmp_path / "in"
        source.mkdir()
        (source / "x").write_text("x")
        root = ingest(store, source, "default")
        repo = RepoKey("default", "a")
        with store.write() as txn:
            txn.create_repo(repo)
        with store.write() as txn:
            commit = txn.start_commit(BranchKey(repo, "master"))
            txn.set_root(commit, root)
            txn.finish_commit(commit)
        disk.full.set()
        creation = jobs.with_defaults(
            None,
            {
                "pipeline": {"name": "p"},
                "transform": {
                    "cmd": [
                        "sh",
                        "-c",
                        f"echo run >> {tmp_path}/runs; head -c 3000000 /dev/zero > $PACH_PFS/out/m",
                    ]
                },
                "input": {"pfs": {"repo": "a", "glob": "/*"}},
            },
            update=False,
            reprocess=False,
        )
        with store.write() as txn:
            jobs.create_pipeline(txn, creation)
        key = JobKey(PipelineKey("default", "p"), txn.set_id)

        def job() -> Job:
            with store.read() as db:
                return tables.get_job(db, key)

        assert disk.refused.wait(20)
        assert job().state is JobState.RUNNING
        disk.full.clear()
        eventually(lambda: job().state in TERMINAL_JOBS, "the job ends")
        assert (job().state, job().processed, job().upload_bytes) == (JobState.SUCCESS, 1, 3_000_000)
        assert (tmp_path / "runs").read_text() == "run\n"
    finally:
        jobs.stop()
        store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(mount)]
    if subprocess.run(line, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a tmpfs")
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


def test_inputs_wait_for_room_and_those_that_never_fit_end_by_name(small_disk: Path) -> None:
    data = small_disk / "engine"
    store = Store.open(data, migrations=MIGRATIONS)
    jobs = Jobs(store, ProcessRuntime(data, isolate=False), MACHINE, data)
    jobs.start()
    try:
        repo = RepoKey("default", "a")
        with store.write() as txn:
            txn.create_repo(repo)
        # What is stored once, and would have to be laid out beside that: 10 and 3 MiB.
        files = {f"/large/{n}": FileSource(os.urandom(MIB - 1)) for n in range(10)}
        files |= {f"/small/{n}": FileSource(os.urandom(MIB - 1)) for n in range(3)}
        root = store.build_tree(files)
        with store.write() as txn:
            commit = txn.start_commit(BranchKey(repo, "master"))
            txn.set_root(commit, root)
            txn.finish_commit(commit)
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - 2 * MIB))
        spec = {
            "pipeline": {"name": "p"},
            "transform": {"cmd": ["sh", "-c", "cat $PACH_PFS/a/small/* > $PACH_PFS/out/m"]},
            "input": {"pfs": {"repo": "a", "glob": "/*", "name": "a"}},
            "resource_requests": {"disk": "4Mi"},
            "datum_tries": 1,
        }
        creation = jobs.with_defaults(None, spec, update=False, reprocess=False)
        with store.write() as txn:
            jobs.create_pipeline(txn, creation)
        key = JobKey(PipelineKey("default", "p"), txn.set_id)
        eventually(lambda: "of disk (" in jobs.reason(jobs.job(key)), "it says what it waits for")
        ballast.unlink()
        eventually(lambda: jobs.job(key).state in TERMINAL_JOBS, "the job ends")
        by_path = {one.files[0].path: one for one in jobs.datums(jobs.job(key))}
        assert by_path["/small/"].state is DatumState.SUCCESS
        large = by_path["/large/"]
        assert (large.state, code_of(large.reason)) == (DatumState.FAILED, Code.DISK_FULL)
        assert "its inputs need 10 MiB of disk and its run asks for 4 MiB, which never fits" in large.reason
    finally:
        jobs.stop()
        store.close()
