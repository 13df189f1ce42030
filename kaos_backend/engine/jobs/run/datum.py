"""One datum from its inputs to its staged output: attempts, err_cmd, and the share of the machine."""

from __future__ import annotations

import itertools
import logging
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from kaos_backend.engine.errors import DiskFull, EngineError, ImageMissing
from kaos_backend.engine.jobs.db.lifecycle import commit_of
from kaos_backend.engine.jobs.db.rows import DatumRow, Job, Pipeline
from kaos_backend.engine.jobs.run.attempt import by_name, datum_env, failure, stdin_of
from kaos_backend.engine.jobs.run.env import RunEnv
from kaos_backend.engine.jobs.run.images import why_lost
from kaos_backend.engine.jobs.run.inputs import NeverFits, root_of
from kaos_backend.engine.jobs.run.logs import last_lines, note, size
from kaos_backend.engine.jobs.run.names import is_odd, new_files
from kaos_backend.engine.jobs.run.places import Places
from kaos_backend.engine.jobs.run.pool import Pool
from kaos_backend.engine.jobs.run.progress import Outcome, Phase, Running
from kaos_backend.engine.jobs.run.scratch import file_bytes
from kaos_backend.engine.jobs.schedule.fair import Holding, Party
from kaos_backend.engine.jobs.schedule.machine import Allocation, request_of
from kaos_backend.engine.jobs.schedule.states import DatumState
from kaos_backend.engine.jobs.spec.plan import File
from kaos_backend.engine.jobs.spec.spec import Transform
from kaos_backend.engine.store.model import CommitKey, FileEntry
from kaos_backend.engine.store.store import Staged
from kaos_backend.engine.workers.port import DatumRun, Output, OutputFile, Worker
from kaos_formats.folders import clean_up
from kaos_formats.quantity import format_bytes, parse_duration

_T = TypeVar("_T")
log = logging.getLogger(__name__)

# A worker that dies under a datum does not count as one of its tries, but not for ever.
_LOST_WORKERS = 3
_BACK_OFF_S = 1.0


@dataclass(slots=True)
class _Try:
    """What the attempts of one datum have come to so far."""

    number: int = 0
    lost: int = 0
    process_us: int = 0
    started_us: int = 0
    recovered: bool = False
    reason: str = ""
    image: str = ""
    output: Output | None = None
    folders: list[Path] = field(default_factory=list)

    def keep(self, output: Output | None) -> None:
        """What the newest run left in the output folder, in place of what an earlier one did."""
        if self.output is not None:
            self.output.close()
        self.output = output


@dataclass(slots=True)
class _Slot:
    """A worker with the share of the machine it runs under. `broken`: not to be used again."""

    worker: Worker
    holding: Holding
    broken: bool = False


# (cmd, stdin, allocation) → the run of it over the datum's files.
MakeRun = Callable[[tuple[str, ...], tuple[str, ...], Allocation], DatumRun]


class TooLarge(Exception):
    """An output for which there never is room."""


class Interrupted(Exception):
    """The datum was stopped from outside; it has no outcome."""


class DatumRunner:
    """Runs the datums of one job. Threads may share it; at most `parallelism` runs go on at once."""

    def __init__(
        self,
        env: RunEnv,
        pipeline: Pipeline,
        job: Job,
        pool: Pool,
        crashing: Callable[[str], None],
    ) -> None:
        self._env = env
        self._job = job
        self._pool = pool
        self._crashing = crashing
        spec = pipeline.spec
        self._transform = spec.transform or Transform()
        self._tries = spec.datum_tries
        self._request = request_of(spec)
        self._timeout_s = parse_duration(spec.datum_timeout) if spec.datum_timeout else None
        self._places = Places(spec.parallelism)
        self._roots: dict[CommitKey, bytes] = {}
        self._inputs = env.inputs.lend(
            shared=env.runtime.protects_inputs(pool.spec.image), beside_bytes=self._request.disk_bytes
        )
        self._parallelism = spec.parallelism
        self._party = Party(job.key.pipeline.project, job.key.pipeline.name, job.key.id)

    def nudge(self) -> None:
        """Make the datums that wait look whether they were cancelled."""
        self._places.nudge()
        self._env.admission.nudge()

    def close(self) -> None:
        """Let go of the job's inputs: no datum runs any more. Idempotent."""
        self._inputs.close()

    def stopped(self, datum: DatumRow, reason: str) -> Outcome:
        """The end of a datum that is stopped before it has a worker."""
        return self._stopped(datum, _Try(started_us=self._env.clock()), reason)

    def _stopped(self, datum: DatumRow, sofar: _Try, reason: str) -> Outcome:
        self._failed(datum, sofar, reason)
        # No worse than one that fails.
        state = DatumState.RECOVERED if self._transform.err_cmd else DatumState.FAILED
        return self._end(datum, state, self._partial(datum, sofar), sofar)

    def why_waits(self, running: int) -> str:
        """What the next datum waits for while so many have a worker."""
        if running >= self._parallelism:
            return f"a place in its pipeline ({self._parallelism} at a time)"
        return self._env.admission.why(self._request, self._party)

    def run(self, running: Running) -> Outcome:
        """Run a datum to its end.

        Raises:
            Interrupted: its `cancel` was set before that, and it was not stopped.
            ImageMissing: with the reason of its job's end: no worker will ever start.
        """
        sofar = _Try(started_us=self._env.clock())
        try:
            return self._attempts(running.datum, sofar, running)
        except Interrupted:
            if running.stopped is None:
                raise
            return self._stopped(running.datum, sofar, running.stopped)
        finally:
            sofar.keep(None)
            for folder in sofar.folders:
                clean_up(folder)

    def _output_folder(self, datum: DatumRow, sofar: _Try) -> Path:
        """A new and empty one, which goes with the datum's run."""
        base = self._env.scratch / str(self._job.seq)
        for n in itertools.count():
            folder = base / f"{datum.id}.{n}"
            try:
                folder.mkdir(parents=True)
            except FileExistsError:  # of an attempt before, or of an earlier run that has not gone
                continue
            sofar.folders.append(folder)
            return folder
        raise AssertionError("there is always another number")

    def _attempts(self, datum: DatumRow, sofar: _Try, running: Running) -> Outcome:
        files = by_name(datum.files)
        try:
            inputs = {
                name: self._with_room(partial(self._inputs.deliver, group, self._root_of), datum, running)
                for name, group in files.items()
            }
        except NeverFits as e:
            self._failed(datum, sofar, f"disk full: {e.message}")
            return self._end(datum, DatumState.FAILED, None, sofar)
        except EngineError as e:
            self._failed(datum, sofar, f"its inputs could not be read: {e.message}")
            return self._end(datum, DatumState.FAILED, None, sofar)
        paths = {name: group[0].path for name, group in files.items()}
        log_file = self._env.logs.datum(self._job.key, datum.id)
        # The worker needs it, whether or not our own lines could be written.
        log_file.parent.mkdir(parents=True, exist_ok=True)
        while sofar.number < self._tries:
            sofar.number += 1
            out = self._output_folder(datum, sofar)

            def run(
                cmd: tuple[str, ...], stdin: tuple[str, ...], allocation: Allocation, out: Path = out
            ) -> DatumRun:
                return DatumRun(
                    cmd=cmd,
                    stdin=stdin_of(stdin),
                    env=datum_env(self._job.key, datum.id, datum.files),
                    inputs=inputs,
                    input_paths=paths,
                    out=out,
                    log=log_file,
                    grant=allocation.grant(self._env.admission.machine),
                    timeout_s=self._timeout_s,
                )

            if not self._attempt(datum, run, sofar, running):
                continue
            if not sofar.reason:
                try:
                    staged = self._with_room(partial(self._stage, datum, sofar), datum, running, out)
                except TooLarge as e:
                    self._output_refused(f"output too large: {e}", datum, run, sofar, running)
                except EngineError as e:
                    self._output_refused(f"output refused: {e.message}", datum, run, sofar, running)
                else:
                    return self._end(datum, DatumState.SUCCESS, staged, sofar)
        state = DatumState.RECOVERED if sofar.recovered else DatumState.FAILED
        return self._end(datum, state, self._partial(datum, sofar), sofar)

    def _attempt(self, datum: DatumRow, run: MakeRun, sofar: _Try, running: Running) -> bool:
        """One attempt and, if it failed, err_cmd. False: the worker was lost, the attempt does not count."""
        with self._slot(running) as slot:
            sofar.reason = ""
            self._note(datum, f"datum started, attempt {sofar.number} of {self._tries}")
            log_file = self._env.logs.datum(self._job.key, datum.id)
            said = partial(last_lines, log_file, size(log_file))
            exit = slot.worker.run(
                run(self._transform.cmd, self._transform.stdin, slot.holding.allocation), running.cancel
            )
            sofar.keep(exit.output)
            sofar.image = exit.image
            sofar.process_us += int(exit.wall_s * 1e6)
            if exit.reason == "canceled" or running.cancel.is_set():
                raise Interrupted
            if exit.reason == "error":
                slot.broken = True
                log.warning("worker lost under datum %s of job %s: %s", datum.id, self._job.key, exit.message)
                if sofar.lost < _LOST_WORKERS:
                    self._note(datum, f"worker lost, the datum is run again: {exit.message}")
                    sofar.lost += 1
                    sofar.number -= 1
                    return False
            accepted, limit = self._transform.accept_return_code, self._request.limit_bytes
            reason = failure(exit, accepted, limit, self._timeout_s, said)
            if reason:
                self._failed(datum, sofar, reason)
                # As in Pachyderm: what ran out of time has none left for err_cmd either.
                if exit.reason not in ("timeout", "error"):
                    self._err_cmd(slot, run, sofar, running)
            return True

    def _output_refused(
        self, reason: str, datum: DatumRow, run: MakeRun, sofar: _Try, running: Running
    ) -> None:
        self._failed(datum, sofar, reason)
        with self._slot(running) as slot:
            self._err_cmd(slot, run, sofar, running)

    def _err_cmd(self, slot: _Slot, run: MakeRun, sofar: _Try, running: Running) -> None:
        if not self._transform.err_cmd:
            return
        exit = slot.worker.run(
            run(self._transform.err_cmd, self._transform.err_stdin, slot.holding.allocation), running.cancel
        )
        sofar.keep(exit.output)
        if exit.reason == "canceled" or running.cancel.is_set():
            raise Interrupted
        if not failure(exit, self._transform.accept_return_code, None, self._timeout_s):
            sofar.recovered = True

    @contextmanager
    def _slot(self, running: Running) -> Iterator[_Slot]:
        """One of the pipeline's places, with a share of the machine and a worker."""
        running.phase = Phase.SHARE
        if not self._places.take(running.cancel.is_set):
            raise Interrupted
        try:
            slot = self._enter(running)
            running.phase, running.worker = Phase.RUN, slot.worker
            try:
                yield slot
            finally:
                running.phase, running.worker = Phase.STORE, None
                self._env.admission.release(slot.holding)
                self._pool.give_back(slot.worker, broken=slot.broken)
        finally:
            self._places.give_back()

    def _enter(self, running: Running) -> _Slot:
        while True:
            holding = self._env.admission.acquire(self._request, running.cancel.is_set, self._party)
            if holding is None:
                raise Interrupted
            try:
                slot = _Slot(self._pool.borrow(), holding)
                running.trouble = ""
                return slot
            except EngineError as e:
                self._env.admission.release(holding)
                running.trouble = e.message
                self._crashing(e.message)
                image, runtime = self._pool.spec.image, self._env.runtime
                if lost := why_lost(self._env.store, runtime, image, runtime.image_problem(image)):
                    raise ImageMissing(lost) from e
            except BaseException:
                self._env.admission.release(holding)
                raise
            # As a kubelet backs off, and without holding the share meanwhile.
            if running.cancel.wait(_BACK_OFF_S):
                raise Interrupted

    def _with_room(
        self, do: Callable[[], _T], datum: DatumRow, running: Running, out: Path | None = None
    ) -> _T:
        """The result of `do`, however long the disk is full or fails: a finished run must outlast that.

        Raises:
            TooLarge: it is the folder `out` that finds no room, and never can on this disk.
        """
        noted = False
        while True:
            try:
                done = do()
                running.trouble = ""
                return done
            except (DiskFull, OSError, sqlite3.Error) as e:
                if out is not None and isinstance(e, DiskFull):
                    self._refuse_too_large(out)
                running.trouble = str(e)
                self._crashing(str(e))
                if not noted:
                    log.warning("datum %s of job %s waits: %s", datum.id, self._job.key, e)
                noted = True
            if running.cancel.wait(_BACK_OFF_S):
                raise Interrupted

    def _refuse_too_large(self, out: Path) -> None:
        size, disk = file_bytes(out), shutil.disk_usage(self._env.store.root)
        # It is there already, and is there once more before it can go.
        if 2 * size > disk.total:
            raise TooLarge(
                f"its {format_bytes(size)} can never fit: the disk has {format_bytes(disk.total)} in all and"
                " needs room for it twice; write less, or move KAOS_HOME to a larger disk"
            )

    def _root_of(self, file: File) -> bytes:
        key = commit_of(file)
        if key not in self._roots:
            self._roots[key] = root_of(self._env.store, key)
        return self._roots[key]

    def _stage(self, datum: DatumRow, sofar: _Try) -> Staged | None:
        """What the last run left, on its way into the store."""
        if sofar.output is None:
            return None
        stored = partial(self._stored, by_name(datum.files))
        return self._env.store.stage(new_files(sofar.output, stored), datum.id)

    def _stored(self, inputs: Mapping[str, Sequence[File]], file: OutputFile) -> FileEntry | None:
        """The store's own entry where an output file is a file of an input."""
        origin = file.origin
        first = inputs[origin.name][0] if origin is not None else None
        if origin is None or first is None or first.empty_files or is_odd(origin.path):
            return None
        return self._env.store.stat(self._root_of(first), origin.path)

    def _partial(self, datum: DatumRow, sofar: _Try) -> Staged | None:
        """What a failed datum left behind, if it can be kept at all."""
        try:
            return self._stage(datum, sofar)
        except (EngineError, OSError):
            return None

    def _failed(self, datum: DatumRow, sofar: _Try, reason: str) -> None:
        sofar.reason = reason
        self._note(datum, f"datum failed: {reason}")

    def _note(self, datum: DatumRow, text: str) -> None:
        note(self._env.logs.datum(self._job.key, datum.id), self._env.clock(), text)

    def _end(self, datum: DatumRow, state: DatumState, staged: Staged | None, sofar: _Try) -> Outcome:
        return Outcome(
            datum=datum,
            state=state,
            staged=staged,
            reason=sofar.reason,
            tries=sofar.number,
            process_us=sofar.process_us,
            started_us=sofar.started_us,
            finished_us=self._env.clock(),
            image=sofar.image,
        )
