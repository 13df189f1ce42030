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
        self._closed = False

    def borrow(self) -> Worker:
        """An idle worker, the most recently used first, or a new one. Raises what `start_worker` raises."""
        with self._lock:
            if self._idle:
                return self._idle.pop()[1]
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
        """Close the workers that have been idle since before `since` (monotonic); how many are left idle."""
        with self._lock:
            old = [worker for at, worker in self._idle if at <= since]
            self._idle = [(at, worker) for at, worker in self._idle if at > since]
            left = len(self._idle)
        for worker in old:
            _close(worker)
        return left

    def close(self) -> None:
        """Close all idle workers now, and each borrowed one when it comes back."""
        with self._lock:
            self._closed = True
        self.close_idle(float("inf"))


def _close(worker: Worker) -> None:
    try:
        worker.close()
    except Exception:
        log.exception("a worker did not close; its process may be left over")
