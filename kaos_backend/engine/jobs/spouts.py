"""Which spouts run: those of the pipelines that are not stopped, each in its newest version."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from kaos_backend.engine.jobs.db import tables
from kaos_backend.engine.jobs.db.rows import Pipeline
from kaos_backend.engine.jobs.run.env import RunEnv
from kaos_backend.engine.jobs.run.pool import Pool
from kaos_backend.engine.jobs.run.serving import SpoutRun


class Spouts:
    """Starts and stops spouts; called by one thread."""

    def __init__(
        self, env: RunEnv, pool: Callable[[Pipeline], Pool], crashing: Callable[[Pipeline, str], None]
    ) -> None:
        self._env = env
        self._pool = pool
        self._crashing = crashing
        # By (row, version) of their pipelines; None for one that is no spout.
        self._runs: dict[tuple[int, int], SpoutRun | None] = {}
        # Rows with what was told to stop and has not yet.
        self._ending: list[tuple[int, SpoutRun]] = []

    def turn(self) -> None:
        """Stop what is not wanted any more, start what is."""
        with self._env.store.read() as db:
            live = tables.live_versions(db)
        for key in [key for key in self._runs if key not in live]:
            run = self._runs.pop(key)
            if run is not None:
                run.stop()
                self._ending.append((key[0], run))
        self._ending = [(row, run) for row, run in self._ending if not run.ended]
        # Another version of what still ends may have the same port; the end of that wakes the loop.
        busy = {row for row, _ in self._ending}
        for key in [key for key in live if key not in self._runs and key[0] not in busy]:
            with self._env.store.read() as db:
                pipeline = tables.find_pipeline(db, live[key], key[1])
            run = None
            if pipeline is not None and pipeline.spec.spout is not None:
                run = SpoutRun(self._env, pipeline, self._pool(pipeline), partial(self._crashing, pipeline))
                run.start()
            self._runs[key] = run

    def running(self) -> set[int]:
        """The rows of the pipelines whose spouts run."""
        ending = {row for row, _ in self._ending}
        return {row for (row, _), run in self._runs.items() if run is not None} | ending

    def stop(self) -> None:
        """End all of them."""
        runs = [run for run in self._runs.values() if run is not None] + [run for _, run in self._ending]
        for run in runs:
            run.stop()
        for run in runs:
            run.join()
