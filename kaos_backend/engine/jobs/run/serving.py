"""Commands that are to run for ever: services, whose job lasts until the next one, and spouts, without jobs.

Reference: pachyderm-api.md section 16.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from kaos_backend.engine.errors import EngineError, ImageMissing
from kaos_backend.engine.jobs.db.rows import DatumRow, Job, JobKey, Pipeline
from kaos_backend.engine.jobs.run.datum import DatumRunner, Interrupted
from kaos_backend.engine.jobs.run.env import RunEnv
from kaos_backend.engine.jobs.run.forward import HOST, forwarding
from kaos_backend.engine.jobs.run.job import JobRun
from kaos_backend.engine.jobs.run.logs import note
from kaos_backend.engine.jobs.run.pool import Pool
from kaos_backend.engine.jobs.run.progress import Phase, Running, matches
from kaos_backend.engine.jobs.run.recorder import discard
from kaos_backend.engine.jobs.schedule.states import DatumState, JobState
from kaos_backend.engine.jobs.spec.spec import Service
from kaos_formats.folders import clean_up

log = logging.getLogger(__name__)

# What has ended by itself is started again, the later the more often it does.
_FIRST_PAUSE_S = 1.0
_LAST_PAUSE_S = 30.0

SPOUT = "spout"
"""What stands for a datum's id where spouts are concerned."""


class Keeper:
    """Keeps one command running behind one port, until it is told to end."""

    def __init__(
        self, env: RunEnv, pipeline: Pipeline, runner: DatumRunner, crashing: Callable[[str], None]
    ) -> None:
        self._env = env
        self._pipeline = pipeline
        self._runner = runner
        self._crashing = crashing
        self._changed = threading.Condition()
        self._ending = False
        self._restart = False
        self.running: Running | None = None
        self.ended: Running | None = None
        self.trouble = ""

    def end(self) -> None:
        """End the command, and `keep` soon."""
        with self._changed:
            self._ending = True
        self._cancel()

    def restart(self) -> None:
        """End the command; another one starts at once."""
        with self._changed:
            self._restart = True
        self._cancel()

    @property
    def ending(self) -> bool:
        """Whether `end` was called."""
        return self._ending

    def pause(self, seconds: float) -> None:
        """Wait, or until `end`."""
        with self._changed:
            self._changed.wait_for(lambda: self._ending, seconds)

    def _cancel(self) -> None:
        with self._changed:
            if self.running is not None:
                self.running.cancel.set()
            self._changed.notify_all()
        self._runner.nudge()

    def keep(self, datum: DatumRow, *, again: bool) -> None:
        """Run the command over a datum's files until `end`; after a good end only if it is to run `again`.

        Raises:
            ImageMissing: with the reason; it can never run again.
        """
        pause = _FIRST_PAUSE_S
        while not self._ending:
            begun = time.monotonic()
            try:
                with self._port():
                    self.trouble = ""
                    done = self._run(datum)
            except OSError as error:
                self.trouble = f"port {self._external} of this machine is not to be had: {error.strerror}"
                self._crashing(self.trouble)
                done = False
            if time.monotonic() - begun > _LAST_PAUSE_S:
                pause = _FIRST_PAUSE_S
            with self._changed:
                wait = None if done and not again else pause
                self._changed.wait_for(lambda: self._ending or self._restart, wait)
                self._restart = False
            pause = min(2 * pause, _LAST_PAUSE_S)

    def _run(self, datum: DatumRow) -> bool:
        """The command, once; whether it ended well."""
        running = Running(datum, self._env.clock(), threading.Event())
        with self._changed:
            if self._ending:
                return False
            self.running = running
        try:
            outcome = self._runner.run(running)
        except Interrupted:
            return False
        except ImageMissing:
            raise
        except (OSError, sqlite3.Error, EngineError) as error:
            log.warning("%s of %s is started again: %s", datum.id, self._pipeline.key, error)
            return False
        finally:
            with self._changed:
                self.running, self.ended = None, running
                running.phase = Phase.INPUTS
        discard([outcome])
        return outcome.state is DatumState.SUCCESS

    @property
    def _service(self) -> Service | None:
        spec = self._pipeline.spec
        return spec.service or (spec.spout.service if spec.spout else None)

    @property
    def _external(self) -> int:
        service = self._service
        return service.external_port if service else 0

    def _port(self) -> AbstractContextManager[None]:
        service = self._service
        if service is None:
            return nullcontext()
        if service.external_port == service.internal_port and not self._env.runtime.own_network:
            return nullcontext()  # it is this machine's already
        return forwarding(service.external_port, self._target)

    def _target(self) -> tuple[str, int] | None:
        with self._changed:
            worker = self.running.worker if self.running is not None else None
        service = self._service
        if worker is None or service is None:
            return None
        host = worker.host
        if host == HOST and self._env.runtime.own_network:
            return None  # it has no network at all, and this machine's port is somebody else's
        return host, service.internal_port


class ServiceRun(JobRun):
    """The job of a service: RUNNING for as long as no newer one can take its place."""

    def __init__(
        self, env: RunEnv, pipeline: Pipeline, job: Job, pool: Pool, crashing: Callable[[str], None]
    ) -> None:
        super().__init__(env, pipeline, job, pool, crashing)
        self._keeper = Keeper(env, pipeline, self._runner, crashing)
        self._replaced = False

    def replace(self) -> None:
        """A newer job is ready: this one ends well."""
        self._replaced = True
        self._keeper.end()

    def stop(self) -> None:
        super().stop()
        self._keeper.end()

    def running(self) -> list[Running]:
        # Its log is read on while nothing runs, too.
        running = self._keeper.running or self._keeper.ended
        return [running] if running is not None else []

    def why_waits(self) -> str:
        return self._keeper.trouble or super().why_waits()

    def restart(self, filters: list[str]) -> bool:
        running = self._keeper.running
        if running is None or not matches(running.datum, filters):
            return False
        self._keeper.restart()
        return True

    def run(self) -> None:
        """Serve; what it raises is an error of the engine or its disk, and it may be run again."""
        if not self._prepare():
            return
        if len(self._pending) != 1:
            found = len(self._pending)
            self._end(JobState.FAILURE, f"services must have a single datum, and the input makes {found}")
            return
        if self._stopping:
            return
        try:
            self._keeper.keep(self._pending.popleft(), again=False)
        except ImageMissing as e:
            self._end(JobState.FAILURE, e.message)
            return
        finally:
            clean_up(self._env.scratch / str(self.job.seq))
        if self._replaced and not self._stopping:
            self._finish()


class SpoutRun:
    """A spout: its command runs, and is started again, for as long as its pipeline is not stopped."""

    def __init__(self, env: RunEnv, pipeline: Pipeline, pool: Pool, crashing: Callable[[str], None]) -> None:
        self._env = env
        self.pipeline = pipeline
        self._crashing = crashing
        self._job = _no_job(pipeline)
        # Nothing of it runs any more, nor will.
        self.ended = False
        self._keeper = Keeper(env, pipeline, DatumRunner(env, pipeline, self._job, pool, crashing), crashing)
        self._thread = threading.Thread(target=self._run, name=f"spout-{pipeline.key.name}", daemon=True)

    def start(self) -> None:
        """Begin, in a thread. RuntimeError when the system has none."""
        self._thread.start()

    def stop(self) -> None:
        """End it; `join` waits."""
        self._keeper.end()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        try:
            self._run_until_stopped()
        finally:
            self.ended = True
            # What has its place next may be waiting.
            self._env.store.changes.notify()

    def _run_until_stopped(self) -> None:
        while not self._keeper.ending:
            try:
                self._serve()
                return
            except EngineError as error:  # a Docker engine that does not answer
                self._crashing(error.message)
                self._keeper.pause(_LAST_PAUSE_S)
            except Exception:
                log.exception("spout %s is taken up again", self.pipeline.key)
                self._keeper.pause(_LAST_PAUSE_S)

    def _serve(self) -> None:
        if problem := spout_problem(self._env, self.pipeline):
            note(self._env.logs.datum(self._job.key, SPOUT), self._env.clock(), problem)
            self._crashing(problem)
            return
        try:
            self._keeper.keep(_its_datum(), again=True)
        finally:
            clean_up(self._env.scratch / str(self._job.seq))


def spout_problem(env: RunEnv, pipeline: Pipeline) -> str:
    """Why a spout cannot run here; "" for any other pipeline. EngineError when nobody can tell."""
    if pipeline.spec.spout is None or not env.runtime.own_network:
        return ""
    return "a spout commits through a port of this machine, which no container reaches: use processes"


def _no_job(pipeline: Pipeline) -> Job:
    """What stands for a job where a datum's run needs one."""
    return Job(
        seq=-pipeline.row,
        key=JobKey(pipeline.key, ""),
        pipeline_row=pipeline.row,
        version=pipeline.version,
        state=JobState.RUNNING,
        reason="",
        created_us=pipeline.updated_us,
        started_us=None,
        finished_us=None,
        failed_of=None,
        **dict.fromkeys(
            (
                *("restart", "total", "processed", "skipped", "failed", "recovered"),
                *("process_us", "download_bytes", "upload_bytes"),
            ),
            0,
        ),
    )


def _its_datum() -> DatumRow:
    """What a spout's command runs over: no file at all."""
    return DatumRow(
        id=SPOUT,
        hash="",
        position=0,
        state=DatumState.UNKNOWN,
        source="",
        root=None,
        reason="",
        tries=0,
        process_us=0,
        download_bytes=0,
        upload_bytes=0,
        started_us=None,
        finished_us=None,
        files=(),
    )
