"""What happens by time: ticks of cron inputs, and triggers of branches that have a cron spec.

Ticks that were missed are made up one by one, as on Pachyderm: the last one that there is tells the next.
Nothing is remembered that a restart would have to bring back.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime

from kaos_backend.engine import cronspec
from kaos_backend.engine.clock import Clock
from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.jobs.db import tables
from kaos_backend.engine.jobs.db.cron import latest, moment, tick
from kaos_backend.engine.jobs.db.rows import PipelineKey
from kaos_backend.engine.jobs.spec.inputs import crons
from kaos_backend.engine.jobs.spec.spec import CronInput
from kaos_backend.engine.store.model import BranchKey
from kaos_backend.engine.store.store import Store

log = logging.getLogger(__name__)

# A clock that was set, or stood still while the machine slept, is noticed this late.
_LOOK_S = 30.0
_RETRY_S = 5.0


@dataclass(slots=True)
class _Cron:
    """A cron input of a pipeline's version. `due`: its next tick; None when there is none any more."""

    pipeline: PipelineKey
    version: int
    input: CronInput
    schedule: cronspec.Schedule
    due: datetime | None


class Clockwork:
    """Makes what is due; called by one thread."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        # By (row, version) of their pipelines.
        self._crons: dict[tuple[int, int], list[_Cron]] = {}
        self._triggers: dict[tuple[BranchKey, str], datetime | None] = {}

    def turn(self) -> float | None:
        """Make what is due now; in how many seconds to come again at the latest, None: at the next change."""
        now = moment(self._clock())
        failed = False
        self._look(now)
        for cron in [one for found in self._crons.values() for one in found]:
            # One at a time: however many were missed, jobs go on between them.
            if cron.due is not None and cron.due <= now:
                try:
                    self._tick(cron)
                except EngineError as error:
                    log.warning("no tick of %s for %s: %s", cron.input.name, cron.pipeline, error.message)
                    failed = True
        for (branch, spec), due in list(self._triggers.items()):
            if due is not None and due <= now:
                try:
                    with self._store.write() as txn:
                        txn.fire_trigger(branch)
                    self._triggers[branch, spec] = cronspec.parse(spec)(now)
                except EngineError as error:
                    log.warning("branch %s cannot move now: %s", branch, error.message)
                    failed = True
        if failed:
            return _RETRY_S
        moments = [cron.due for found in self._crons.values() for cron in found if cron.due is not None]
        moments += [due for due in self._triggers.values() if due is not None]
        if not moments:
            return None
        return min(_LOOK_S, max(0.0, (min(moments) - now).total_seconds()))

    def _look(self, now: datetime) -> None:
        """Learn of what is new, forget what is gone."""
        with self._store.read() as db:
            live = tables.live_versions(db)
        self._crons = {key: found for key, found in self._crons.items() if key in live}
        for key in live:
            if key not in self._crons:
                try:
                    self._crons[key] = self._of(live[key], key[1])
                except EngineError as error:
                    # Its last tick cannot be read; the others tick on.
                    log.error("%s ticks no more until the engine starts anew: %s", live[key], error.message)
                    self._crons[key] = []
        specs = self._store.cron_triggers()
        self._triggers = {key: due for key, due in self._triggers.items() if key in specs}
        for branch, spec in specs:
            if (branch, spec) not in self._triggers:
                self._triggers[branch, spec] = cronspec.parse(spec)(now)

    def _of(self, key: PipelineKey, version: int) -> list[_Cron]:
        with self._store.read() as db:
            pipeline = tables.find_pipeline(db, key, version)
        found = []
        for cron in crons(pipeline.spec.input if pipeline else None):
            schedule = cronspec.parse(cron.spec)
            found.append(_Cron(key, version, cron, schedule, schedule(latest(self._store, cron))))
        return found

    def _tick(self, cron: _Cron) -> None:
        assert cron.due is not None
        with self._store.upload() as upload, self._store.write() as txn:
            pipeline = tables.find_pipeline(txn.db, cron.pipeline)
            if pipeline is not None and pipeline.version == cron.version and not pipeline.stopped:
                tick(txn, cron.input, cron.due, upload)
        cron.due = cron.schedule(cron.due)
