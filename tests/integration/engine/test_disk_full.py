"""A full disk holds a finished trial up; it does not lose it."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

from kaos_backend.engine.jobs.db import tables
from kaos_backend.engine.jobs.db.rows import MIGRATIONS, Job, JobKey, PipelineKey
from kaos_backend.engine.jobs.schedule.states import TERMINAL_JOBS, JobState
from kaos_backend.engine.jobs.service import Jobs
from kaos_backend.engine.store.bytes.disk import Disk
from kaos_backend.engine.store.model import BranchKey, RepoKey
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.workers.process.runtime import ProcessRuntime
from tests.integration.engine.conftest import MACHINE, eventually
from tests.support.files import ingest


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
