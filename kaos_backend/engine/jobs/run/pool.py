"""The workers of one pipeline version: started when needed, reused over datums and jobs, closed when idle."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from kaos_backend.engine.jobs.run.secrets import Given
from kaos_backend.engine.workers.port import Runtime, Worker, WorkerSpec

log = logging.getLogger(__name__)


class Pool:
    """Idle workers of one kind. The caller bounds how many are out at once.

    Args:
        secrets: what a worker that starts now is given of them.
    """

    def __init__(
        self,
        runtime: Runtime,
        spec: WorkerSpec,
        monotonic: Callable[[], float],
        secrets: Callable[[], Given] = Given,
    ) -> None:
        self.spec = spec
        self._secrets = secrets
        self._runtime = runtime
        self._monotonic = monotonic
        self._idle: list[tuple[float, Worker]] = []
        self._lock = threading.Lock()
        self._started = 0
        # Set when the worker is there, or will not be, that starts ahead of who borrows it.
        self._coming: threading.Event | None = None
        self._closed = False

    def warm_up(self) -> None:
        """Begin with a worker that somebody is about to borrow, unless one is idle. Returns at once."""
        with self._lock:
            if self._idle or self._coming is not None or self._closed:
                return
            self._coming = threading.Event()
        thread = threading.Thread(target=self._bring, args=(self._coming,), name="worker-ahead", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no thread for it now
            self._arrived(self._coming)

    def borrow(self) -> Worker:
        """An idle worker, the most recently used first, or a new one. Raises what `start_worker` raises."""
        while True:
            with self._lock:
                if self._idle:
                    return self._idle.pop()[1]
                coming = self._coming
            if coming is None:
                return self._start()
            coming.wait()

    def _bring(self, coming: threading.Event) -> None:
        try:
            self.give_back(self._start())
        except Exception as e:
            # Who borrows one has it tried again, and is told.
            log.info("no worker could be started ahead: %s", e)
        finally:
            self._arrived(coming)

    def _arrived(self, coming: threading.Event) -> None:
        with self._lock:
            self._coming = None
        coming.set()

    def _start(self) -> Worker:
        with self._lock:
            self._started += 1
            name = f"{self.spec.name}-{self._started}"
        given = self._secrets()
        env = {**given.env, **self.spec.env, "PPS_POD_NAME": name}
        return self._runtime.start_worker(replace(self.spec, name=name, env=env, secrets=given.files))

    def give_back(self, worker: Worker, *, broken: bool = False) -> None:
        """Keep a worker for the next datum; a broken one, or one of a closed pool, is closed."""
        with self._lock:
            keep = not broken and not self._closed
            if keep:
                self._idle.append((self._monotonic(), worker))
        if not keep:
            _close(worker)

    def close_idle(self, since: float) -> int:
        """Close the workers that were idle before `since` (monotonic); how many are left, or come."""
        with self._lock:
            old = [worker for at, worker in self._idle if at <= since]
            self._idle = [(at, worker) for at, worker in self._idle if at > since]
            left = len(self._idle) + (self._coming is not None)
        for worker in old:
            _close(worker)
        return left

    def close(self) -> None:
        """Close all idle workers now, and each borrowed one when it comes back."""
        with self._lock:
            self._closed = True
            coming = self._coming
        if coming is not None:
            coming.wait()
        self.close_idle(float("inf"))


def _close(worker: Worker) -> None:
    try:
        worker.close()
    except Exception:
        log.exception("a worker did not close; its process may be left over")
