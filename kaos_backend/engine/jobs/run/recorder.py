"""Writes down how a job's datums end, and shows their outputs in the job's open output commit as they come.

Belongs to the thread of one job. Ends that come while it waits for the disk share its next transaction.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from kaos_backend.engine.errors import DataLoss
from kaos_backend.engine.jobs.db.datums import kept_roots, record_end
from kaos_backend.engine.jobs.db.lifecycle import is_open, output_before, output_commit
from kaos_backend.engine.jobs.db.rows import Job, Result
from kaos_backend.engine.jobs.run.progress import Outcome
from kaos_backend.engine.jobs.schedule.states import DatumState
from kaos_backend.engine.store.references import Held
from kaos_backend.engine.store.store import Store, Txn

log = logging.getLogger(__name__)

# How often, at most, the open output commit shows what has been finished so far, which share of the time that
# may take, and how many bytes of listings a second it may leave behind: the chunks of the listing that change
# are written anew, and of ten thousand models that end in no order each brings another chunk of 20 KB.
_REFRESH_S = 0.5
_REFRESH_SHARE = 0.05
_REFRESH_BYTES_PER_S = 256 * 1024
# But for the sake of these nobody waits longer than so to see a model.
_REFRESH_BYTES_S = 10.0
# About what one output takes.
_MERGE_S = 5e-6


class Recorder:
    """The ends of one job's datums, on their way into its rows and its output commit."""

    def __init__(self, store: Store, job: Job) -> None:
        self._store = store
        self._job = job
        self._root: bytes | None = None
        # Outputs that are recorded but not yet shown, and those that are still shown but not the job's.
        self._unmerged: list[bytes] = []
        self._gone: list[bytes] = []
        # When to show what is new, by the monotonic clock.
        self._refresh_at = 0.0
        store.roots.hold(self)

    def held(self) -> Iterator[Held]:
        """The outputs that are merged next: should the job go meanwhile, so may what refers to them."""
        held = (self._root, *self._unmerged, *self._gone)
        yield Held(tuple(root for root in held if root is not None))

    def resume(self) -> None:
        """Take up what an earlier run or an earlier job has finished: the commit shows most of it already."""
        with self._store.read() as db:
            base = output_before(self._store, db, self._job)
            self._root, before = base or (None, None)
            self._unmerged = kept_roots(db, self._job.seq, but_of=before)
            self._gone = [] if before is None else kept_roots(db, before, but_of=self._job.seq)
        if self._unmerged:
            # First of all the others are to run.
            wait_s = max(_REFRESH_S, len(self._unmerged) * _MERGE_S / _REFRESH_SHARE)
            self._refresh_at = time.monotonic() + wait_s

    def due_s(self, now: float) -> float | None:
        """Seconds from `now` (monotonic) until there is something new to show; None: nothing is waiting."""
        return self._refresh_at - now if self._unmerged else None

    def record(self, ended: Sequence[Outcome], *, show: bool) -> None:
        """One transaction: the outputs of `ended`, their rows, and with `show`, if it is due, the commit."""
        show = show and time.monotonic() >= self._refresh_at
        if not ended and not (show and self._unmerged):
            return
        with self._store.write() as txn:
            fresh = self._record(txn, ended)
            began = time.monotonic()
            merged = self._show(txn, [*self._unmerged, *fresh]) if show else None
        # They are adopted; what is left of them is a descriptor each.
        discard(ended)
        if show:
            # A commit that somebody else finished takes nothing more: then there is nothing left to show.
            self._root = self._root if merged is None else merged[0]
            now = time.monotonic()
            self._unmerged, self._gone = [], []
            for_bytes_s = min(txn.merged_bytes / _REFRESH_BYTES_PER_S, _REFRESH_BYTES_S)
            self._refresh_at = now + max(_REFRESH_S, (now - began) / _REFRESH_SHARE, for_bytes_s)
        else:
            self._unmerged += fresh

    @contextmanager
    def last(self, ended: Sequence[Outcome]) -> Iterator[Txn]:
        """The transaction that ends the job: all outputs are in the commit then, those of `ended` too."""
        with self._store.write() as txn:
            self._show(txn, [*self._unmerged, *self._record(txn, ended)])
            yield txn
        discard(ended)

    def _record(self, txn: Txn, ended: Sequence[Outcome]) -> list[bytes]:
        """Write down how they ended; the outputs that are to be shown."""
        fresh: list[bytes] = []
        for outcome in ended:
            root = None if outcome.staged is None else txn.adopt(outcome.staged)
            size = 0 if root is None else txn.stat(root, "/").size_bytes
            result = Result(
                state=outcome.state,
                root=root,
                reason=outcome.reason,
                tries=outcome.tries,
                process_us=outcome.process_us,
                upload_bytes=size,
                started_us=outcome.started_us,
                finished_us=outcome.finished_us,
                image=outcome.image,
            )
            # Also for a job that was killed meanwhile: what is finished is there for the next one.
            new = record_end(txn.db, self._job.seq, outcome.datum.id, result)
            if new and root is not None and outcome.state is DatumState.SUCCESS:
                fresh.append(root)
        return fresh

    def _show(self, txn: Txn, roots: list[bytes]) -> tuple[bytes | None] | None:
        """The commit's new root; None when the commit is not open any more."""
        key = output_commit(self._job.key)
        if not is_open(txn, key):
            return None
        try:
            root = txn.merge([self._root, *roots], without=self._gone)
        except DataLoss as error:
            # What an earlier job lost costs this one nothing.
            log.warning("the output of job %s is put together anew: %s", self._job.key, error.message)
            root = txn.merge(kept_roots(txn.db, self._job.seq))
        txn.set_root(key, root)
        return (root,)


def discard(outcomes: Iterable[Outcome]) -> None:
    """Let go of what the outcomes staged: what was not adopted is gone with it."""
    for outcome in outcomes:
        if outcome.staged is not None:
            outcome.staged.discard()
