"""One worker slot: a folder, a launcher and a place. One datum at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from kaos_backend.engine.workers.output import FolderOutput
from kaos_backend.engine.workers.port import DatumRun, Exit, Grant
from kaos_backend.engine.workers.process.cgroup import Group
from kaos_backend.engine.workers.process.launch import Launcher, Process, alone, failed
from kaos_backend.engine.workers.process.places import Place
from kaos_formats.folders import clean_up


class ProcessWorker:
    """Runs datums as processes; after a launcher's death the next run starts another.

    Args:
        folder: everything the worker writes, `out` apart; made here, gone with the worker.
        make: puts the worker's place into `folder`.
        notice: a line for the head of every log; empty for none.
        group: the worker's control group, which is closed with it; without one memory is sampled.
        private: a folder of its secrets, which goes with it.
        start: how its launchers are started.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        folder: Path,
        make: Callable[[Path], Place],
        notice: str = "",
        group: Group | None = None,
        private: Path | None = None,
        start: Callable[[], Process] = alone,
    ) -> None:
        self.folder = folder
        self._notice = notice
        self._group = group
        self._private = private
        self._limits: Grant | None = None
        self._lock = threading.Lock()
        self._closed = False
        folder.mkdir(parents=True)
        try:
            self._place = make(folder)
            self.launcher = Launcher(start)
        except BaseException:
            clean_up(folder)
            raise

    def run(self, run: DatumRun, cancel: threading.Event) -> Exit:
        """Run one datum; see `port.Worker`."""
        started = time.monotonic()
        if self._closed:
            return failed("the worker was closed", started)
        if cancel.is_set():
            return Exit(None, None, "canceled", "", 0, 0.0)
        output = None
        try:
            request = self._request(run)
            output = FolderOutput(run.out, self._place.sight(run))
            if self._notice:
                _note(run.log, self._notice)
            exit_ = self.launcher.run(request, cancel)
            self._place.collect(run)
            return replace(exit_, output=output)
        except (OSError, ValueError) as error:
            if output is not None:
                output.close()
            if self._closed:
                # By another thread, which has removed the folder meanwhile.
                return Exit(None, None, "canceled", "", 0, time.monotonic() - started)
            return failed(f"the worker cannot run it: {error}", started)

    def close(self) -> None:
        """End the launcher, and with it a running datum; remove the worker's files."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.launcher.close()
        clean_up(self.folder)
        if self._private is not None:
            clean_up(self._private)
        if self._group is not None:
            self._group.close()

    def _request(self, run: DatumRun) -> dict[str, Any]:
        command = self._place.command(run, self.launcher.sandbox)
        # A launcher that was ended took the group with it: then this fails, and the run gets another worker.
        if self._group is not None and (run.grant != self._limits or self.launcher.pid is None):
            self._group.limit(run.grant)
            self._limits = run.grant
        return {
            "argv": list(command.argv),
            "env": dict(command.env),
            "cwd": command.cwd,
            "sandbox": command.sandbox,
            "stdin": run.stdin.decode("latin-1"),
            "log": str(run.log),
            "cores": list(run.grant.cores),
            "memory": run.grant.memory_bytes,
            "groups": self._group.members if self._group else [],
            "ooms": self._group.ooms if self._group else None,
            "timeout": run.timeout_s,
            "tty": run.terminal.path if run.terminal is not None else None,
        }


def _note(log: Path, text: str) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{time.time_ns() // 1000} s {text}\n")
