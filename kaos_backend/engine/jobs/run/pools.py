"""The pools of all pipelines, one for each version whose workers may be of use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Set
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from kaos_backend.engine.jobs.db.rows import Pipeline
from kaos_backend.engine.jobs.run.attempt import worker_spec
from kaos_backend.engine.jobs.run.env import RunEnv
from kaos_backend.engine.jobs.run.pool import Pool
from kaos_backend.engine.jobs.run.secrets import Given, given

_LET_GO_S = 1.0


class Pools:
    """For one thread alone.

    Args:
        monotonic: in seconds.
        stopping: set when nothing is worth waiting for any more.
    """

    def __init__(self, env: RunEnv, monotonic: Callable[[], float], stopping: threading.Event) -> None:
        self._env = env
        self._monotonic = monotonic
        self._stopping = stopping
        # By the row of a pipeline and its version.
        self._pools: dict[tuple[int, int], Pool] = {}
        self._closing = ThreadPoolExecutor(1, "old-workers")

    def of(self, pipeline: Pipeline) -> Pool:
        """The workers of this version; those of older versions are let go."""
        key = (pipeline.row, pipeline.version)
        for old in [k for k in self._pools if k[0] == pipeline.row and k != key]:
            self._closing.submit(self._let_go, self._pools.pop(old), time.monotonic() + _LET_GO_S)
        if key not in self._pools:
            secrets = partial(self._given, pipeline)
            self._pools[key] = Pool(self._env.runtime, worker_spec(pipeline), self._monotonic, secrets)
        return self._pools[key]

    def close_others(self, there: Set[int], busy: Callable[[int], bool]) -> bool:
        """Close those of pipelines that are not `there`; False if some, of `busy` ones, stay."""
        done = True
        for key in [key for key in self._pools if key[0] not in there]:
            if busy(key[0]):
                done = False
            else:
                self._pools.pop(key).close()
        return done

    def close_idle(self, idle_s: float, busy: Set[int]) -> bool:
        """Close workers that were idle for so long; whether other idle ones are left. Pools without any are
        forgotten but for those of `busy` pipelines.
        """
        since = self._monotonic() - idle_s
        idle = False
        for key, pool in list(self._pools.items()):
            if pool.close_idle(since):
                idle = True
            elif key[0] not in busy:
                # Its pipeline may be gone.
                del self._pools[key]
        return idle

    def close(self) -> None:
        """Close all idle workers now, and each borrowed one when it comes back."""
        for pool in self._pools.values():
            pool.close()
        self._closing.shutdown()

    def _let_go(self, pool: Pool, at: float) -> None:
        """Close a pool once what takes its place has begun: a container ends as slowly as a build."""
        self._stopping.wait(max(0.0, at - time.monotonic()))
        pool.close()

    def _given(self, pipeline: Pipeline) -> Given:
        """The secrets of a pipeline as they are when a worker starts."""
        mounts = pipeline.spec.transform.secrets if pipeline.spec.transform else ()
        with self._env.store.read() as db:
            found = given(self._env.vault, db, mounts) if mounts else Given()
        # A spout commits what it has to say, as any other client.
        return (
            found if pipeline.spec.spout is None else Given({**found.env, **self._env.access()}, found.files)
        )
