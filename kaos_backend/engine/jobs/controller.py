"""The thread that moves jobs on.

It wakes on every committed change, looks at the oldest unfinished job of each pipeline, and takes the steps
that `decide` names. Everything it knows it can read again after a crash.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.jobs.clockwork import Clockwork
from kaos_backend.engine.jobs.db import tables
from kaos_backend.engine.jobs.db.lifecycle import end_open_job, output_commit
from kaos_backend.engine.jobs.db.rows import Job, Pipeline
from kaos_backend.engine.jobs.run.attempt import worker_spec
from kaos_backend.engine.jobs.run.env import RunEnv
from kaos_backend.engine.jobs.run.images import AwaitedImages, ForgottenImages, why_lost
from kaos_backend.engine.jobs.run.job import JobRun
from kaos_backend.engine.jobs.run.logs import append
from kaos_backend.engine.jobs.run.pools import Pools
from kaos_backend.engine.jobs.run.serving import ServiceRun, spout_problem
from kaos_backend.engine.jobs.schedule.decide import Do, InputState, Step, next_step
from kaos_backend.engine.jobs.schedule.states import JobState, PipelineState
from kaos_backend.engine.jobs.spouts import Spouts

log = logging.getLogger(__name__)

# How soon a missing image is looked for again, and a job tried again after an error of the engine.
_RETRY_S = 0.5
_ERROR_S = 5.0
_IDLE_S = 60.0
_AWAKE = (PipelineState.RUNNING, PipelineState.STANDBY)


class Controller:
    """Owns the running jobs and the workers."""

    def __init__(
        self, env: RunEnv, monotonic: Callable[[], float] = time.monotonic, idle_s: float = _IDLE_S
    ) -> None:
        self._env = env
        self._monotonic = monotonic
        self._idle_s = idle_s
        self._clockwork = Clockwork(env.store, env.clock)
        self._stopping = threading.Event()
        self._pools = Pools(env, monotonic, self._stopping)
        self._spouts = Spouts(env, self._pools.of, self._crashing)
        self._lock = threading.Lock()
        self._runs: dict[int, JobRun] = {}
        self._threads: dict[int, threading.Thread] = {}
        self._not_before: dict[int, float] = {}
        self._forgotten = threading.Event()
        self._images = ForgottenImages(env.store, env.runtime)
        self._awaited = AwaitedImages(env.runtime, monotonic, _RETRY_S)
        self._thread = threading.Thread(target=self._loop, name="jobs", daemon=True)

    def start(self) -> None:
        """Begin with what a crash left, and with what has become of the images meanwhile."""
        self._env.inputs.open()
        with self._env.store.read() as db:
            ready = tables.pipelines_in(db, _AWAKE)
        for pipeline in ready:
            try:
                self._wake(pipeline)
            except Exception:
                log.exception("the state of pipeline %s could not be told", pipeline.key)
        self._thread.start()

    def stop(self) -> None:
        """Interrupt what runs and wait for it; the interrupted datums run again at the next start."""
        self._stopping.set()
        self._env.store.changes.notify()
        self._thread.join()
        with self._lock:
            runs, threads = list(self._runs.values()), list(self._threads.values())
        for run in runs:
            run.stop()
        self._spouts.stop()
        for thread in threads:
            thread.join()
        self._pools.close()
        self._images.close()

    def forget(self) -> None:
        """A pipeline was deleted: its workers and images go."""
        self._forgotten.set()
        self._env.store.changes.notify()

    def cancel(self, seq: int) -> None:
        """The job was ended by a write; stop its datums."""
        with self._lock:
            run = self._runs.get(seq)
        if run is not None:
            run.stop()

    def run_of(self, seq: int) -> JobRun | None:
        """The run of a job, while it has a thread."""
        with self._lock:
            return self._runs.get(seq)

    def busy(self) -> bool:
        """Whether any job runs."""
        with self._lock:
            return bool(self._runs)

    def why_waits(self, job: Job) -> str:
        """What an unfinished job, or some of its datums, wait for now; "" when nothing holds it up."""
        run = self.run_of(job.seq)
        if run is not None:
            return run.why_waits()
        with self._env.store.read() as db:
            head = tables.head_job(db, job.pipeline_row)
            pipeline = tables.get_pipeline(db, job.key.pipeline, job.version)
        if head is None:
            return ""  # it has just ended
        if head.seq != job.seq:
            return f"waits for job {head.key.id[:8]} of the same pipeline, which comes first"
        if self._not_before.get(job.seq, 0.0) > self._monotonic():
            return "waits a moment after an error of the engine, which engine.log describes"
        if self._busy(job.pipeline_row):
            return "waits for a stopped job of the same pipeline to store what it has finished"
        # A job is CREATED for no longer than until the loop looks at it.
        state = JobState.STARTING if job.state is JobState.CREATED else job.state
        problem = self._env.runtime.image_problem(worker_spec(pipeline).image)
        return next_step(state, pipeline.state, self._inputs(job), problem).reason

    def look(self, pipelines: Sequence[Pipeline]) -> list[Pipeline]:
        """These as they are now: CRASHING if the image went while nobody asked for it, not if it came."""
        problems: dict[str, str] = {}
        return [self._as_now(one, problems) if one.version == one.latest else one for one in pipelines]

    def _as_now(self, one: Pipeline, problems: dict[str, str]) -> Pipeline:
        image = worker_spec(one).image
        waits = one.state is PipelineState.CRASHING and bool(image) and image in one.reason
        if not waits and one.state not in _AWAKE:
            return one
        if image not in problems:
            problems[image] = self._env.runtime.image_problem(image)
        problem = problems[image]
        if waits and not problem:
            # Built, and the loop comes to look in a moment.
            return replace(one, state=self._awake(one), reason="")
        if problem and not waits:
            self._crashing(one, problem)
            return replace(one, state=PipelineState.CRASHING, reason=problem)
        return one

    # --- the loop

    def _loop(self) -> None:
        changes = self._env.store.changes
        while not self._stopping.is_set():
            since = changes.version()
            try:
                soon = self._turn()
            except Exception:
                log.exception("the job loop failed a turn and goes on")
                soon = _RETRY_S
            changes.wait(since, soon)

    def _turn(self) -> float | None:
        """Take every step there is to take; after how many seconds to look again at the latest."""
        again = False
        progress = True
        while progress and not self._stopping.is_set():
            progress = False
            with self._env.store.read() as db:
                heads = [*tables.head_jobs(db), *self._successors(db)]
                paused = tables.paused(db)
                waiting = tables.pipelines_in(db, (PipelineState.STARTING, PipelineState.CRASHING))
            self._env.admission.pause(paused)
            for pipeline in waiting:
                again |= not self._wake(pipeline)
            for job in heads:
                if self.run_of(job.seq) is not None:
                    continue
                if self._not_before.get(job.seq, 0.0) > self._monotonic():
                    again = True
                    continue
                try:
                    step = self._step(job)
                except Exception:
                    # One broken pipeline must not hold up the others.
                    log.exception("no step could be taken for job %s", job.key)
                    self._not_before[job.seq] = self._monotonic() + _ERROR_S
                    again = True
                    continue
                progress |= step.do in (Do.START, Do.GIVE_UP, Do.FAIL)
                again |= step.do is Do.CRASH
        if self._forgotten.is_set():
            self._close_forgotten()
        self._images.remove()
        self._spouts.turn()
        waits = [_RETRY_S] if again else []
        if self._close_idle():
            waits.append(self._idle_s / 4)
        if (due := self._clockwork.turn()) is not None:
            waits.append(due)
        return min(waits, default=None)

    def _successors(self, db: sqlite3.Connection) -> list[Job]:
        """The jobs that come after services that run, which end when these are ready."""
        with self._lock:
            serving = [run.job for run in self._runs.values() if isinstance(run, ServiceRun)]
        after = [
            [job for job in tables.open_jobs(db, one.pipeline_row) if job.seq > one.seq] for one in serving
        ]
        return [jobs[0] for jobs in after if jobs]

    def _wake(self, pipeline: Pipeline) -> bool:
        """RUNNING or CRASHING, by whether the pipeline's image is there. True: RUNNING."""
        problem = self._awaited.problem(worker_spec(pipeline).image) or spout_problem(self._env, pipeline)
        self._set_pipeline(pipeline, PipelineState.CRASHING if problem else self._awake(pipeline), problem)
        return not problem

    def _awake(self, pipeline: Pipeline) -> PipelineState:
        """What a pipeline is whose workers could start: with `autoscaling` it rests while there is no job."""
        if not pipeline.spec.autoscaling:
            return PipelineState.RUNNING
        with self._env.store.read() as db:
            return PipelineState.RUNNING if tables.head_job(db, pipeline.row) else PipelineState.STANDBY

    def _step(self, job: Job) -> Step:
        with self._env.store.read() as db:
            pipeline = tables.get_pipeline(db, job.key.pipeline, job.version)
        image = worker_spec(pipeline).image
        inputs = self._inputs(job) if job.state is JobState.STARTING else []
        # Whoever has the images is not asked while there is something else to wait for.
        ready = all(one.finished for one in inputs)
        problem = self._env.runtime.image_problem(image) if ready else ""
        lost = why_lost(self._env.store, self._env.runtime, image, problem)
        step = next_step(job.state, pipeline.state, inputs, problem, bool(lost))
        if step.do is Do.START:
            with self._env.store.write() as txn:
                fresh = tables.job_by_seq(txn.db, job.seq)
                if fresh is not None and fresh.state is JobState.CREATED:
                    tables.set_job_state(txn.db, fresh, JobState.STARTING)
        elif step.do is Do.GIVE_UP:
            self._end(job, JobState.UNRUNNABLE, step.reason)
        elif step.do is Do.FAIL:
            self._set_pipeline(pipeline, PipelineState.CRASHING, step.reason)
            self._end(job, JobState.FAILURE, lost)
        elif step.do is Do.CRASH:
            self._set_pipeline(pipeline, PipelineState.CRASHING, step.reason)
        elif step.do is Do.RUN and (serving := self._serving(job)) is not None:
            serving.replace()
        elif step.do is Do.RUN and not self._busy(job.pipeline_row):
            self._set_pipeline(pipeline, PipelineState.RUNNING, "")
            self._launch(job, pipeline)
        return step

    def _end(self, job: Job, state: JobState, reason: str) -> None:
        with self._env.store.write() as txn:
            ended = end_open_job(txn, job.seq, state, reason)
        if ended:
            append(self._env.logs.master(job.key), self._env.clock(), f"job ended: {state.name}: {reason}")

    def _busy(self, pipeline_row: int) -> bool:
        """Whether an earlier, killed run still stores outputs: started now, a job would run those again.

        The end of that run wakes the loop.
        """
        with self._lock:
            return any(run.job.pipeline_row == pipeline_row for run in self._runs.values())

    def _serving(self, job: Job) -> ServiceRun | None:
        """The service that runs now and that `job` takes the place of."""
        with self._lock:
            runs = [run for run in self._runs.values() if run.job.pipeline_row == job.pipeline_row]
        return next((run for run in runs if isinstance(run, ServiceRun) and run.job.seq < job.seq), None)

    def _inputs(self, job: Job) -> list[InputState]:
        store = self._env.store
        states = []
        for key in store.inspect_commit(output_commit(job.key)).provenance:
            commit = store.inspect_commit(key)
            states.append(InputState(key.repo.name, commit.finished, commit.error))
        return states

    def _set_pipeline(self, pipeline: Pipeline, state: PipelineState, reason: str) -> None:
        if pipeline.state is state and pipeline.reason == reason:
            return
        with self._env.store.write() as txn:
            fresh = tables.find_pipeline(txn.db, pipeline.key)
            movable = (
                *(PipelineState.STARTING, PipelineState.RUNNING, PipelineState.STANDBY),
                PipelineState.CRASHING,
            )
            if fresh is None or fresh.latest != pipeline.version or fresh.state not in movable:
                return
            if (fresh.state, fresh.reason) != (state, reason):
                tables.set_pipeline_state(txn.db, fresh, state, reason)

    def _crashing(self, pipeline: Pipeline, reason: str) -> None:
        """Called by the pipeline's own threads, which go on whatever becomes of this."""
        try:
            with self._env.store.read() as db:
                fresh = tables.find_pipeline(db, pipeline.key)
            if fresh is not None:
                self._set_pipeline(fresh, PipelineState.CRASHING, reason)
        except EngineError:
            # Most likely the reason itself: no room to write it down.
            log.warning("pipeline %s: %s", pipeline.key, reason)

    # --- runs and workers

    def _launch(self, job: Job, pipeline: Pipeline) -> None:
        kind = JobRun if pipeline.spec.service is None else ServiceRun
        run = kind(self._env, pipeline, job, self._pools.of(pipeline), partial(self._crashing, pipeline))
        thread = threading.Thread(target=self._run, args=(run,), name=f"job-{job.key.id[:8]}", daemon=True)
        with self._lock:
            self._runs[job.seq], self._threads[job.seq] = run, thread
        try:
            thread.start()
        except RuntimeError:
            # The system has no thread for it now; what is not registered is tried again.
            with self._lock:
                del self._runs[job.seq], self._threads[job.seq]
            raise

    def _run(self, run: JobRun) -> None:
        seq = run.job.seq
        try:
            run.run()
            self._not_before.pop(seq, None)
        except Exception:
            log.exception("job %s stumbled over an error of the engine; it is taken up again", run.job.key)
            self._not_before[seq] = self._monotonic() + _RETRY_S
        finally:
            self._awaited.look_again()
            with self._lock:
                del self._runs[seq], self._threads[seq]
            if run.pipeline.spec.autoscaling:
                self._rest(run.pipeline)
            # Its successor may be waiting, and so may this one.
            self._env.store.changes.notify()

    def _rest(self, pipeline: Pipeline) -> None:
        """A job of a pipeline with `autoscaling` has ended."""
        try:
            with self._env.store.read() as db:
                fresh = tables.find_pipeline(db, pipeline.key)
            if fresh is not None and fresh.state is PipelineState.RUNNING:
                self._set_pipeline(fresh, self._awake(fresh), "")
        except (EngineError, sqlite3.Error):
            log.warning("that pipeline %s is idle could not be written down", pipeline.key)

    def _close_forgotten(self) -> None:
        """Let go of the workers of pipelines that are gone; then nothing uses their images."""
        self._forgotten.clear()
        with self._env.store.read() as db:
            there = tables.rows_of_pipelines(db)
        if not self._pools.close_others(there, self._busy):
            self._forgotten.set()  # the end of a run wakes the loop
        self._images.forget()

    def _close_idle(self) -> bool:
        with self._lock:
            busy = {run.pipeline.row for run in self._runs.values()} | self._spouts.running()
        return self._pools.close_idle(self._idle_s, busy)
