"""Giving space back: by itself while little else goes on, after deletions, and when somebody asks for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.jobs.db import tables
from kaos_backend.engine.jobs.db.rows import JobKey, PipelineKey
from kaos_backend.engine.jobs.run.inputs import InputCache
from kaos_backend.engine.jobs.run.laidout import Usage
from kaos_backend.engine.jobs.run.logs import Logs
from kaos_backend.engine.jobs.usage import DiskUse, disk_use
from kaos_backend.engine.store.model import CommitKey
from kaos_backend.engine.store.space.collect import Collected, collect
from kaos_backend.engine.store.space.pace import Interrupted, Pace, Progress
from kaos_backend.engine.store.store import Store, Txn
from kaos_backend.engine.workers.port import Runtime, StoredImage
from kaos_formats.folders import clean_up, disk_bytes

SHARE = 0.2
"""How much of a core's time collections take that nobody asked for."""
# After a deletion others may follow; what is written over in open commits is looked for now and then.
_SETTLE_S = 2.0
_EVERY_S = 1800.0
_BUSY_S = 30.0
_PATIENCE_S = 10.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Swept:
    """What went, or would go: of the store, of the images, of the logs of jobs that are gone, and of inputs
    laid out whose commits are gone.
    """

    store: Collected = field(default_factory=Collected)
    images: list[StoredImage] = field(default_factory=list)
    logs: int = 0
    log_bytes: int = 0
    inputs: int = 0
    input_bytes: int = 0


class Upkeep:
    """The upkeep of one engine.

    Args:
        share: see `SHARE`; with 0 nothing runs by itself.
        busy: whether jobs run, to which the machine belongs.
    """

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        logs: Logs,
        inputs: InputCache,
        busy: Callable[[], bool],
        share: float = SHARE,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._logs = logs
        self._inputs = inputs
        self._busy = busy
        self._share = share
        self._seen = -1
        self._held = False
        self._due = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)
        store.hooks.before_drop.append(self._dropped)

    def start(self) -> None:
        if self._share > 0:
            self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._due.set()
        if self._thread.is_alive():
            self._thread.join()

    def forget(self) -> None:
        """Something was deleted: it is worth while to look."""
        self._due.set()

    def sweep(self, pace: Pace | None = None, *, dry_run: bool = False) -> Iterator[Progress | Swept]:
        """Remove what nothing needs any more, and tell how far that is; the last told is what went.

        Raises:
            FailedPrecondition: a directory is damaged.
            Interrupted: by `pace`.
        """
        swept = Swept()
        swept.logs, swept.log_bytes = self._sweep_logs(dry_run)
        broken_off = self._store.partials.sweep(dry_run=dry_run)
        # First: a large object that inputs are links to stays on the disk for as long as they do.
        swept.inputs, swept.input_bytes = self._sweep_inputs(dry_run)
        swept.images = self._sweep_images(dry_run)
        for told in collect(self._store, pace, dry_run=dry_run):
            if isinstance(told, Progress):
                yield told
            else:
                swept.store = told
                told.freed_bytes += broken_off
        yield swept

    def disk_use(self) -> DiskUse:
        """See `usage.disk_use`."""
        return disk_use(self._store, self._runtime, self._logs, self._inputs)

    # By itself

    def _dropped(self, txn: Txn, _commits: Sequence[object]) -> None:
        txn.on_commit(self.forget)

    def _run(self) -> None:
        while True:
            asked = self._due.wait(_EVERY_S)
            if self._stopping.wait(_SETTLE_S):
                return
            self._due.clear()
            # Half objects end by the clock, whatever else goes on.
            self._store.partials.sweep()
            # File sets end without a write.
            if not asked and self._store.changes.version() == self._seen and not self._held:
                continue
            # What was deleted is to be gone soon; else it can wait until nothing runs.
            if not asked and self._busy():
                self._due.wait(_BUSY_S)
                continue
            self._seen = self._store.changes.version()
            self._held = bool(self._store.roots.held())
            try:
                self._by_itself()
            except Interrupted:
                self._stopping.wait(_BUSY_S)
                self._due.set()
            except EngineError as error:
                log.warning("no space is given back: %s", error.message)
            except Exception:
                log.exception("the upkeep failed")

    def _by_itself(self) -> None:
        pace = Pace(self._share, self._stopping, self._store.upkeep.wanted, _PATIENCE_S)
        for told in self.sweep(pace):
            if isinstance(told, Swept) and (told.store.objects or told.store.freed_bytes or told.logs):
                gone = told.store
                log.info(
                    "gave back %s bytes of files, %s of the database: %s objects, %s packs, %s logs of jobs",
                    *(gone.freed_bytes, gone.database_bytes, gone.objects, gone.packs, told.logs),
                )

    # Images and logs

    def _sweep_images(self, dry_run: bool) -> list[StoredImage]:
        try:
            before = [one for one in self._runtime.stored_images() if not self._needed(one)]
            if dry_run or not before:
                return before
            self._runtime.keep_images(self._wanted)
            left = {(one.kind, one.name) for one in self._runtime.stored_images()}
        except EngineError as error:
            # A Docker engine that is down, say.
            log.warning("%s", error.message)
            return []
        return [one for one in before if (one.kind, one.name) not in left]

    def _needed(self, stored: StoredImage) -> bool:
        return any(self._wanted(image) for image in stored.images)

    def _wanted(self, image: str) -> bool:
        with self._store.read() as db:
            return tables.is_mentioned(db, image)

    def _sweep_logs(self, dry_run: bool) -> tuple[int, int]:
        """(how many, bytes) of the logs of jobs that are gone."""
        # What is there is looked at first: a job is written down before its log.
        folders = [one for one in self._logs.root.glob("*/*/*/") if not one.name.startswith(".")]
        gone = [one for one in folders if self._is_gone(one)]
        total = sum(disk_bytes(one) for one in gone)
        if not dry_run:
            for one in gone:
                clean_up(one)
            self._sweep_projects()
        return len(gone), total

    def _sweep_projects(self) -> None:
        """Remove the folders of logs that are empty, of projects that are gone."""
        there = {project.name for project in self._store.list_projects()}
        for folder in self._logs.root.glob("*/"):
            if folder.name not in there:
                for one in (*folder.glob("*/"), folder):
                    # One with something in it is for the next sweep.
                    with suppress(OSError):
                        one.rmdir()

    def _sweep_inputs(self, dry_run: bool) -> tuple[int, int]:
        """(how many, bytes) of the inputs laid out all of whose commits are gone. Those that a stopped trial
        has not let go of yet go with it, and do not count.
        """

        def unneeded(usage: Usage) -> bool:
            return bool(usage.commits) and not any(map(self._has_commit, usage.commits))

        gone = [usage for usage in self._inputs.usage() if unneeded(usage)]
        if gone and not dry_run:
            self._inputs.discard(unneeded)
        free = [usage for usage in gone if not usage.in_use]
        return len(free), sum(usage.bytes for usage in free)

    def _has_commit(self, text: str) -> bool:
        return self._store.find_commit(CommitKey.parse(text)) is not None

    def _is_gone(self, folder: Path) -> bool:
        """Whether it is of a pipeline that is gone, or of a job (a spout has none, and a log of its own)."""
        key = PipelineKey(folder.parent.parent.name, folder.parent.name)
        with self._store.read() as db:
            pipeline = tables.find_pipeline(db, key)
            if pipeline is None:
                return True
            return pipeline.spec.spout is None and tables.find_job(db, JobKey(key, folder.name)) is None
