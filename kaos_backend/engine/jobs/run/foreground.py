"""One command in the foreground: what a datum is given, for somebody who waits for it, and nothing stored."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.jobs.db.lifecycle import commit_of
from kaos_backend.engine.jobs.db.rows import JobKey
from kaos_backend.engine.jobs.run.attempt import by_name, datum_env, failure, stdin_of
from kaos_backend.engine.jobs.run.env import RunEnv
from kaos_backend.engine.jobs.run.inputs import Lent, root_of
from kaos_backend.engine.jobs.run.logs import Tail
from kaos_backend.engine.jobs.run.names import place_of_inputs
from kaos_backend.engine.jobs.run.secrets import given
from kaos_backend.engine.jobs.schedule.fair import Party
from kaos_backend.engine.jobs.schedule.machine import request_of
from kaos_backend.engine.jobs.spec.plan import File
from kaos_backend.engine.jobs.spec.spec import Spec, Transform
from kaos_backend.engine.workers.port import DatumRun, Exit, Grant, Output, WorkerSpec
from kaos_backend.engine.workers.terminal import Terminal
from kaos_formats import loglines, tar
from kaos_formats.folders import clean_up

log = logging.getLogger(__name__)

_LOOK_S = 0.05
_ALIVE_S = 20.0
_QUEUED = 256
_CHUNK = 1 << 16
_CANCELED_CODE = 130
_FAILED_CODE = 1
_NO_GRANT = Grant(0.0, (), None, ())

Execute = Callable[[DatumRun, threading.Event], Exit]


@dataclass(frozen=True, slots=True)
class Order:
    """What to run. `files`: what of commits the inputs are; `inline`: inputs of one file, by name: the path
    that the variable leads to, the file's, its content. `left`: the tree that is in the output folder at
    first. `keep`: its output is handed out in the end.
    """

    key: JobKey
    worker: WorkerSpec = field(repr=False)
    spec: Spec = field(repr=False)
    files: Sequence[File]
    inline: Mapping[str, tuple[str, str, bytes]] = field(repr=False)
    left: bytes | None
    cmd: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    terminal: Terminal | None
    keep: bool


@dataclass(frozen=True, slots=True)
class Event:
    """One of: what is waited for, that it runs, a remark, what was printed, a piece of the output's tar, the
    end with its code (and the reason where that does not tell all). None of them: all is well.
    """

    waiting: str = ""
    running: bool = False
    note: str = ""
    printed: bytes = b""
    output: bytes = b""
    code: int | None = None
    reason: str = ""


class Foreground:
    """Iterate over `events` once; `cancel` from any thread ends the command and then the iteration."""

    def __init__(self, env: RunEnv, order: Order) -> None:
        self._env = env
        self._order = order
        self._cancel = threading.Event()
        self._events: queue.Queue[Event | None] = queue.Queue(_QUEUED)
        self._party = Party(order.key.pipeline.project, order.key.pipeline.name, order.key.id)
        self._request = request_of(order.spec)
        self._admitted = False
        self._thread = threading.Thread(target=self._work, name="foreground", daemon=True)

    def cancel(self) -> None:
        """End the command, if it runs, and what waits for it."""
        self._cancel.set()
        self._env.admission.nudge()

    def events(self) -> Iterator[Event]:
        """All that happens, the end last. When the iteration is given up, the command ends too."""
        self._thread.start()
        told, silent_s = "", 0.0
        try:
            while True:
                try:
                    event = self._events.get(timeout=0.5)
                except queue.Empty:
                    silent_s += 0.5
                    why = "" if self._admitted else self._env.admission.why(self._request, self._party)
                    if why != told:
                        told, silent_s = why, 0.0
                        yield Event(waiting=why)
                    elif silent_s >= _ALIVE_S:
                        silent_s = 0.0
                        yield Event()
                    continue
                if event is None:
                    return
                silent_s = 0.0
                yield event
        finally:
            self.cancel()
            self._thread.join()
            if self._order.terminal is not None:
                self._order.terminal.close()

    def join(self) -> None:
        """Wait until nothing of it is left."""
        if self._thread.ident is not None:
            self._thread.join()

    # --- the thread that runs it

    def _put(self, event: Event | None) -> None:
        while not self._cancel.is_set():
            try:
                self._events.put(event, timeout=0.5)
            except queue.Full:
                continue
            return

    def _work(self) -> None:
        scratch = self._env.scratch / f"foreground-{self._order.key.id}"
        try:
            shared = self._env.runtime.protects_inputs(self._order.worker.image)
            with closing(self._env.inputs.lend(shared=shared)) as inputs:
                scratch.mkdir(parents=True)
                self._run(scratch, inputs)
        except (EngineError, OSError) as error:
            self._put(Event(code=_FAILED_CODE, reason=str(error)))
        except Exception as error:
            log.exception("a command in the foreground failed")
            self._put(Event(code=_FAILED_CODE, reason=f"engine error: {error}"))
        finally:
            clean_up(scratch)
            self._put(None)
            # For whoever has given up meanwhile nobody puts anything any more.
            if self._cancel.is_set():
                self._drain()

    def _drain(self) -> None:
        while True:
            try:
                self._events.get_nowait()
            except queue.Empty:
                break
        self._events.put(None)

    def _run(self, scratch: Path, inputs: Lent) -> None:
        order = self._order
        run = self._prepared(scratch, inputs)
        holding = self._env.admission.acquire(self._request, self._cancel.is_set, self._party)
        if holding is None:
            return
        self._admitted = True
        try:
            with self._env.store.read() as db:
                secrets = given(self._env.vault, db, (order.spec.transform or Transform()).secrets)
            spec = replace(order.worker, env={**order.worker.env, **secrets.env}, secrets=secrets.files)
            worker = self._env.runtime.start_worker(spec)
            try:
                self._put(Event(running=True))
                run = replace(run, grant=holding.allocation.grant(self._env.admission.machine))
                self._try(run, worker.run, scratch)
            finally:
                worker.close()
        finally:
            self._env.admission.release(holding)

    def _try(self, run: DatumRun, execute: Execute, scratch: Path) -> None:
        """As a datum, run it until it succeeds, each time in an empty output folder; a terminal's once."""
        spec = self._order.spec
        accepted = (spec.transform or Transform()).accept_return_code
        tries = max(1, spec.datum_tries) if run.terminal is None else 1
        for number in range(1, tries + 1):
            exit = self._follow(run, execute)
            failed = failure(exit, accepted, run.grant.memory_bytes, run.timeout_s)
            if number == tries or not failed or exit.reason == "canceled" or self._cancel.is_set():
                self._end(exit, run)
                return
            if exit.output is not None:
                exit.output.close()
            self._put(Event(note=f"{failed}; attempt {number + 1} of {tries}"))
            run = replace(run, out=scratch / f"out.{number}", log=scratch / f"log.{number}")
            run.out.mkdir()

    def _prepared(self, scratch: Path, lent: Lent) -> DatumRun:
        order, transform = self._order, self._order.spec.transform or Transform()
        files = by_name(order.files)
        inputs = {name: lent.prepare(group, self._root_of) for name, group in files.items()}
        paths = {name: group[0].path for name, group in files.items()}
        for name, (path, file, content) in order.inline.items():
            inputs[name], paths[name] = scratch / "inputs" / name, path
            target = inputs[name] / file.strip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        out = scratch / "out"
        if order.left is None:
            out.mkdir()
        else:
            place = place_of_inputs(self._env.store, order.left, "/")
            self._env.store.materialize(order.left, "/", out, place)
            _make_writable(out)
        return DatumRun(
            cmd=order.cmd or transform.cmd,
            stdin=b"" if order.cmd else stdin_of(transform.stdin),
            env={**datum_env(order.key, order.key.id, order.files), **order.env},
            inputs=inputs,
            input_paths=paths,
            out=out,
            log=scratch / "log",
            grant=_NO_GRANT,
            timeout_s=None,
            terminal=order.terminal,
        )

    def _root_of(self, file: File) -> bytes:
        return root_of(self._env.store, commit_of(file))

    def _follow(self, run: DatumRun, execute: Execute) -> Exit:
        """Run it, and pass on what it prints meanwhile."""
        over = threading.Event()
        pump = threading.Thread(target=self._pump, args=(run, over), name="foreground-output", daemon=True)
        pump.start()
        try:
            return execute(run, self._cancel)
        finally:
            over.set()
            pump.join()

    def _pump(self, run: DatumRun, over: threading.Event) -> None:
        terminal, tail = run.terminal, Tail(run.log)
        while True:
            # Before the look: what was printed by then is found by it.
            last = over.is_set()
            if terminal is not None:
                while data := terminal.read(0.0 if last else _LOOK_S):
                    self._put(Event(printed=data))
            else:
                for block in tail.blocks(tail.advance(whole=last)):
                    self._pass_on(block.data)
                over.wait(_LOOK_S)
            if last:
                return

    def _pass_on(self, block: bytes) -> None:
        printed: list[bytes] = []
        for line in loglines.lines(block):
            if line.user:
                printed.append(line.text.encode() + b"\n")
            else:
                self._put(Event(note=line.text))
        if printed:
            self._put(Event(printed=b"".join(printed)))

    def _end(self, exit: Exit, run: DatumRun) -> None:
        try:
            if exit.reason == "canceled" or self._cancel.is_set():
                self._put(Event(code=_CANCELED_CODE, reason="interrupted"))
                return
            reason = ""
            if exit.reason not in ("exited", "signal"):
                reason = failure(exit, (), run.grant.memory_bytes, run.timeout_s)
            if self._order.keep and exit.output is not None:
                for data in _tar_of(exit.output):
                    self._put(Event(output=data))
            code = exit.code if exit.code is not None else _FAILED_CODE
            self._put(Event(code=code or (_FAILED_CODE if reason else 0), reason=reason))
        finally:
            if exit.output is not None:
                exit.output.close()


def _tar_of(output: Output) -> Iterator[bytes]:
    """The files of an output, by their true names."""
    for file in output.files():
        size = os.fstat(file.data.fileno()).st_size
        yield tar.header(file.path.lstrip("/"), size, 0o644)
        left = size
        while left and (data := file.data.read(min(_CHUNK, left))):
            left -= len(data)
            yield data
        # Nothing of the run is alive: a file that shrank is a disk that fails.
        if left:
            raise EngineError(f"{file.path} could not be read to its end")
        yield tar.padding(size)
    yield tar.END


def _make_writable(top: Path) -> None:
    for folder, _, names in os.walk(top):
        for path in (folder, *(os.path.join(folder, name) for name in names)):  # noqa: PTH118
            os.chmod(path, os.stat(path).st_mode | 0o600)  # noqa: PTH101, PTH116
