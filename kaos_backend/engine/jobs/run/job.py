"""One running job: has its datums planned, runs them on worker threads, has each end written down, finishes.

Only the thread of the job writes; ends that arrive while it waits for the disk share its next transaction.
A crash at any point leaves the job RUNNING with the rows of what is done; `run` goes on from there.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from kaos_backend.engine.errors import CommitForgotten, DataLoss, DiskFull, ImageMissing
from kaos_backend.engine.jobs.db import tables
from kaos_backend.engine.jobs.db.datums import (
    failed_datums,
    insert_datums,
    kept_results,
    reasons_of,
    waiting_datums,
)
from kaos_backend.engine.jobs.db.lifecycle import (
    end_job,
    end_open_job,
    is_open,
    meta_commit,
    output_commit,
    show_meta,
)
from kaos_backend.engine.jobs.db.rows import DatumRow, Job, Pipeline
from kaos_backend.engine.jobs.run.datum import DatumRunner, Interrupted
from kaos_backend.engine.jobs.run.env import RunEnv
from kaos_backend.engine.jobs.run.logs import note
from kaos_backend.engine.jobs.run.planning import datums_of
from kaos_backend.engine.jobs.run.pool import Pool
from kaos_backend.engine.jobs.run.progress import Outcome, Phase, Running, matches
from kaos_backend.engine.jobs.run.recorder import Recorder, discard
from kaos_backend.engine.jobs.schedule.admission import capacity
from kaos_backend.engine.jobs.schedule.machine import request_of
from kaos_backend.engine.jobs.schedule.states import (
    TERMINAL_JOBS,
    DatumState,
    JobState,
    move_datum,
)
from kaos_formats.endings import summary
from kaos_formats.folders import clean_up
from kaos_formats.quantity import parse_duration

log = logging.getLogger(__name__)

_DISK_FULL_S = 1.0
# How long a datum waits that met an error of the engine.
_TROUBLE_S = 1.0
# How long the end of one datum may wait for those of others.
_GATHER_S = 0.05
# Threads beyond the runs that can go on at once: they store outputs while the next datums run.
_SPARE_THREADS = 2


class JobRun:
    """Runs one job of a pipeline to its end, or until it is cancelled (ended by others) or interrupted."""

    def __init__(
        self, env: RunEnv, pipeline: Pipeline, job: Job, pool: Pool, crashing: Callable[[str], None]
    ) -> None:
        self.job = job
        self.pipeline = pipeline
        self._env = env
        self._crashing = crashing
        self._pool = pool
        self._runner = DatumRunner(env, pipeline, job, pool, crashing)
        self._recorder = Recorder(env.store, job)
        self._changed = threading.Condition()
        self._pending: deque[DatumRow] = deque()
        self._running: dict[str, Running] = {}
        self._ended: list[Outcome] = []
        self._stopping = False
        self._prepared = False
        # Why no further datum can run, nor ever will.
        self._lost = ""
        # What keeps ends from being written down.
        self._trouble = ""

    # --- from other threads

    def stop(self) -> None:
        """Stop what runs: the job was ended by someone else, or the engine stops. `run` returns soon."""
        with self._changed:
            self._stopping = True
            for running in self._running.values():
                running.cancel.set()
            self._changed.notify_all()
        self._runner.nudge()

    def running(self) -> list[Running]:
        """What is being worked on."""
        with self._changed:
            return list(self._running.values())

    def why_waits(self) -> str:
        """What the datums that no worker has wait for, in a line; "" when none waits."""
        with self._changed:
            pending, running, trouble = len(self._pending), list(self._running.values()), self._trouble
        if not self._prepared:
            return "waits for its inputs to be listed"
        phases = Counter(one.phase for one in running if not one.trouble)
        phases[Phase.SHARE] += pending
        what = {Phase.INPUTS: "inputs to be laid out", Phase.STORE: "their outputs to be stored"}
        if phases[Phase.SHARE]:
            what[Phase.SHARE] = self._runner.why_waits(phases[Phase.RUN])
        said = [f"{_wait(phases[phase])} for {text}" for phase, text in what.items() if phases[phase]]
        troubles = Counter(one.trouble for one in running if one.trouble)
        if trouble:
            troubles[trouble] += 1
        return "; ".join([*said, *(f"{_wait(count)}: {text}" for text, count in troubles.items())])

    def restart(self, filters: list[str]) -> bool:
        """Start the running datums again whose inputs match every filter (a path or a hash in hex)."""
        with self._changed:
            found = [running for running in self._running.values() if matches(running.datum, filters)]
            for running in found:
                running.cancel.set()
        self._runner.nudge()
        return bool(found)

    def stop_datums(self, filters: list[str], reason: str) -> None:
        """End the datums whose inputs match every filter and which have not ended; the others go on.

        Their end is recorded like any other, a moment later.
        """
        with self._changed:
            for running in self._running.values():
                if matches(running.datum, filters):
                    running.stopped = reason
                    running.cancel.set()
            waiting = [datum for datum in self._pending if matches(datum, filters)]
            for datum in waiting:
                self._pending.remove(datum)
                move_datum(datum.state, DatumState.STARTING)
                self._ended.append(self._runner.stopped(datum, reason))
            self._changed.notify_all()
        self._runner.nudge()

    # --- the job's thread

    def run(self) -> None:
        """To the job's end. What it raises is an error of the engine or its disk; it may be run again."""
        try:
            self._run()
        except DataLoss as e:
            # No other try would find what is gone. What its datums made is theirs, and stays.
            self._end(JobState.FAILURE, f"its output could not be put together: {e.message}")

    def _run(self) -> None:
        threads: list[threading.Thread] = []
        timed_out = False
        try:
            try:
                if not self._prepare():
                    return
            except (DataLoss, CommitForgotten) as e:
                # No try will find what is gone.
                self._end(JobState.UNRUNNABLE, f"its inputs could not be listed: {e.message}")
                return
            self._start(threads)
            timed_out = self._record_until_done()
        finally:
            self._stop_unless_idle()
            for thread in threads:
                thread.join()
            self._runner.close()
            self._record_last()
            clean_up(self._env.scratch / str(self.job.seq))
        if timed_out:
            # Pachyderm's reason, to the letter: programs may look for it.
            self._end(JobState.KILLED, " jobtimed out")
        elif self._lost and not self._stopping:
            self._end(JobState.FAILURE, self._lost)

    def _start(self, threads: list[threading.Thread]) -> None:
        """Start the worker threads and add them to `threads`; fewer do where the system gives no more.

        Raises:
            RuntimeError: not even one could be started.
        """
        for i in range(self._thread_count()):
            thread = threading.Thread(target=self._work, name=f"datum-{self.job.key.id[:8]}-{i}", daemon=True)
            try:
                thread.start()
            except RuntimeError as e:
                if not threads:
                    raise
                log.warning("job %s goes on with %d threads: %s", self.job.key, i, e)
                return
            threads.append(thread)

    def _stop_unless_idle(self) -> None:
        """Stop the worker threads if there is anything left for them."""
        with self._changed:
            idle = not self._pending and not self._running
        if not idle:
            self.stop()

    def _thread_count(self) -> int:
        spec = self.pipeline.spec
        at_once = min(spec.parallelism, len(self._pending))
        if at_once == 0:
            return 0
        return capacity(self._env.admission.machine, request_of(spec), at_once) + min(_SPARE_THREADS, at_once)

    def _prepare(self) -> bool:
        """RUNNING with a row per datum, or with those of a run that was cut short. False: it has ended."""
        store = self._env.store
        with store.read() as db:
            job = tables.job_by_seq(db, self.job.seq)
        if job is None or job.state in TERMINAL_JOBS:
            return False
        if job.state is JobState.STARTING:
            planned = datums_of(store, self.pipeline.spec, self.job.key)
            with store.write() as txn:
                job = tables.job_by_seq(txn.db, job.seq)
                if job is None or job.state in TERMINAL_JOBS:
                    return False
                again = self.pipeline.spec.reprocess_spec == "every_job"
                kept = {} if again else kept_results(txn.db, job.pipeline_row, planned)
                if job.failed_of is not None:
                    failed = failed_datums(txn.db, job.failed_of)
                    planned = [datum for datum in planned if datum.id in failed or datum.id in kept]
                tables.set_job_state(txn.db, job, JobState.RUNNING, started_us=txn.now_us)
                # That of a service never ends, and Pachyderm counts none.
                insert_datums(txn.db, job, planned, kept, counted=self.pipeline.spec.service is None)
                if len(kept) < len(planned):
                    # It starts while the disk is waited for, and inputs are laid out.
                    self._pool.warm_up()
            self._note(f"{len(planned)} datums, {len(kept)} of them done before")
        else:
            with store.write() as txn:
                tables.count_restart(txn.db, job.seq)
            self._note("job resumed")
        with store.read() as db:
            # Of ten thousand that are done no more is read than this.
            self._pending.extend(waiting_datums(db, self.job.seq))
            self.job = tables.job_by_seq(db, self.job.seq) or self.job
        self._recorder.resume()
        self._prepared = True
        return True

    def _work(self) -> None:
        """A worker thread: one datum after the other."""
        while True:
            with self._changed:
                if self._stopping or not self._pending:
                    return
                datum = self._pending.popleft()
                move_datum(datum.state, DatumState.STARTING)
                running = Running(datum, self._env.clock(), threading.Event())
                self._running[datum.id] = running
            outcome = None
            try:
                outcome = self._runner.run(running)
            except Interrupted:
                pass
            except ImageMissing as e:
                self._give_up(running, e.message)
                return
            except (OSError, sqlite3.Error) as e:
                # The engine's own trouble (descriptors, its disk) says nothing of the trial: it runs again.
                log.warning("datum %s of job %s is put back: %s", datum.id, self.job.key, e)
                running.cancel.wait(_TROUBLE_S)
            except Exception as e:
                log.exception("datum %s of job %s", datum.id, self.job.key)
                outcome = Outcome(
                    datum,
                    DatumState.FAILED,
                    None,
                    f"engine error: {e}",
                    1,
                    0,
                    running.started_us,
                    self._env.clock(),
                )
            with self._changed:
                del self._running[datum.id]
                if outcome is not None:
                    self._ended.append(outcome)
                else:
                    self._pending.appendleft(datum)
                self._changed.notify_all()

    def _give_up(self, running: Running, reason: str) -> None:
        """What has a worker runs to its end, and so does the job then."""
        with self._changed:
            self._lost = reason
            del self._running[running.datum.id]
            self._pending.clear()
            self._changed.notify_all()

    def _record_until_done(self) -> bool:
        """Write ends down as they come, with the last of them the job's own. True: it ran out of its time."""
        deadline = None
        if self.pipeline.spec.job_timeout:
            started_us = self.job.started_us or self._env.clock()
            elapsed = (self._env.clock() - started_us) / 1e6
            deadline = time.monotonic() + parse_duration(self.pipeline.spec.job_timeout) - elapsed
        while True:
            with self._changed:
                while not (self._ended or self._stopping or self._idle()):
                    now = time.monotonic()
                    if deadline is not None and now >= deadline:
                        return True
                    waits = [] if deadline is None else [deadline - now]
                    due = self._recorder.due_s(now)
                    if due is not None:
                        if due <= 0:
                            break
                        waits.append(due)
                    self._changed.wait(min(waits, default=None))
                if self._stopping:
                    return False
                # Ends that come one by one share a transaction, and its wait for the disk.
                self._changed.wait_for(lambda: self._stopping or self._idle(), _GATHER_S)
                last = self._idle() and not self._stopping and not self._lost
                if self._idle() and not self._ended and not last:
                    return False
                ended, self._ended = self._ended, []
            try:
                if last:
                    self._finish(ended)
                    return False
                self._recorder.record(ended, show=not self._stopping)
            except BaseException as e:
                # What is finished must not be lost: it is written down later, at the latest at the end.
                with self._changed:
                    self._ended = [*ended, *self._ended]
                if not isinstance(e, DiskFull):
                    raise
                self._trouble = e.message
                self._crashing(e.message)
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping, _DISK_FULL_S)
            else:
                self._trouble = ""

    def _idle(self) -> bool:
        return not self._pending and not self._running

    def _record_last(self) -> None:
        with self._changed:
            ended, self._ended = self._ended, []
        try:
            self._recorder.record(ended, show=False)
        except BaseException:
            discard(ended)
            raise

    def _finish(self, ended: Sequence[Outcome] = ()) -> None:
        """The last ends, FINISHING and then the job's own end, with both commits, in one transaction."""
        with self._recorder.last(ended) as txn:
            job = tables.job_by_seq(txn.db, self.job.seq)
            if job is None or job.state in TERMINAL_JOBS:
                return

            failed = next(iter(reasons_of(txn.db, job.seq, DatumState.FAILED)), None)
            output, meta = output_commit(job.key), meta_commit(job.key)
            show_meta(txn, job)
            if failed is not None:
                state, reason = JobState.FAILURE, f"datum {failed[0]} failed: {failed[1]}"
            else:
                tables.set_job_state(txn.db, job, JobState.FINISHING)
                job = tables.job_by_seq(txn.db, job.seq) or job
                for key in (output, meta):
                    # A client may have finished it by force; the job ends all the same.
                    if is_open(txn, key):
                        txn.finish_commit(key, force=True)
                reason = txn.inspect_commit(output).error
                state = JobState.FAILURE if reason else JobState.SUCCESS
                recovered = reasons_of(txn.db, job.seq, DatumState.RECOVERED)
                reason = reason or summary([one for _, one in recovered])
            end_job(txn, job, state, reason)
        self._note(f"job ended: {state.name}{': ' if reason else ''}{reason}")

    def _end(self, state: JobState, reason: str) -> None:
        with self._env.store.write() as txn:
            ended = end_open_job(txn, self.job.seq, state, reason)
        if ended:
            self._note(f"job ended: {state.name}: {reason}")

    def _note(self, text: str) -> None:
        note(self._env.logs.master(self.job.key), self._env.clock(), text)


def _wait(count: int) -> str:
    return "1 datum waits" if count == 1 else f"{count} datums wait"
