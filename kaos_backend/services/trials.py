"""Trials: the points of a job's grid with their datums, models and metrics."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache

from kaos_backend import errors
from kaos_backend.domain import deploys, hyperparams, metrics
from kaos_backend.domain import jobs as rules
from kaos_backend.domain.descriptions import rfc3339
from kaos_backend.domain.models import Datum, DatumState, Job, JobState, RunningDatum
from kaos_backend.domain.stages import Outcome, fold, outcomes
from kaos_backend.pachd.port import Pachd
from kaos_backend.services import inputs, presenters, views
from kaos_backend.services.jobs import Jobs, stopped_by, with_trials
from kaos_backend.services.readings import Readings
from kaos_backend.services.reasons import Reasons
from kaos_formats import names
from kaos_formats.build_secrets import ids_of
from kaos_formats.endings import Code, alike, code_of

# Trials of ended jobs, all in all; of one with more than that none. Some 2 KB each.
_REMEMBERED = 20_000
_NOTES = 20

FAILED = (DatumState.FAILED, DatumState.RECOVERED)
_NOTHING = metrics.Reading({})


@dataclass(frozen=True, slots=True)
class TrialDatum:
    """One trial of a job: its point of the grid, the model it makes, its datum once it has ended, and what a
    worker is at if it is running.
    """

    point: hyperparams.Trial
    model: str
    datum: Datum | None
    running: RunningDatum | None


class Trials:
    """Reading trials; those of ended jobs are remembered, since they can not change."""

    def __init__(self, pachd: Pachd, jobs: Jobs, readings: Readings, reasons: Reasons) -> None:
        self._pachd = pachd
        self._readings = readings
        self._reasons = reasons
        self._jobs = jobs
        self._guard = threading.Lock()
        self._ended: LRUCache[tuple[str, str], _Read] = LRUCache(_REMEMBERED, len)

    def detail(
        self,
        workspace: str,
        ref: str,
        sort_by: str | None = None,
        order: metrics.Order | None = None,
        limit: int | None = None,
    ) -> views.JobDetail:
        """One job with its inputs and its first ``limit`` trials (None: all), best first when there is a
        metric. Raises NoSuchJob, Ambiguous.
        """
        inputs.require_workspace(self._pachd, workspace)
        job_id = self._jobs.resolve(workspace, ref)
        jobs = self._jobs.explained(workspace, self._jobs.of_set(workspace, job_id))
        read = self._jobs.inputs_of(workspace, job_id)
        trials: list[TrialDatum] = []
        readings: list[metrics.Reading] = []
        rows: list[views.Trial] = []
        failed: list[views.Trial] = []
        settings = metric = None
        known: list[str] = []
        for (stage, job), outcome in zip(jobs, outcomes(jobs), strict=True):
            if stage.trials:
                settings = self._settings(workspace, job.id)
                found = self._read(workspace, job, read)
                read_of = {trial.model: found.reading(trial) for trial in found.trials}
                known = sorted({name for reading in read_of.values() for name in reading.metrics})
                metric = metrics.choose(known, sort_by, order)
                trials = metrics.sort_best_first(
                    found.trials, [read_of[trial.model].metrics for trial in found.trials], metric
                )
                # Of thousands of trials few are shown.
                rows = [_row(trial, job, outcome, found) for trial in trials[:limit]]
                failed = [_row(trial, job, outcome, found) for trial in trials if _failed(trial)]
                readings = [read_of[trial.model] for trial in trials]
        notes = [
            views.TrialNote(trial=trial.point.number, note=note)
            for trial, reading in zip(trials, readings, strict=True)
            for note in reading.notes
        ]
        about = read.descriptions
        built = self._build(workspace, read)
        return views.JobDetail(
            **dict(self._jobs.summarize(job_id, jobs, read)),
            inputs=views.Inputs(
                source=presenters.bundle(about.get(names.SOURCE)),
                data=presenters.bundle(inputs.counted(self._pachd, workspace, read)),
                manifest=presenters.bundle(about.get(names.MANIFEST)),
                hyper=presenters.hyper(about.get(names.HYPER)),
            ),
            settings=None if settings is None else presenters.settings(settings),
            build_args=presenters.arguments(deploys.arguments_of(built)),
            build_secrets=ids_of(built),
            trials=rows,
            count=len(trials),
            notes=notes[:_NOTES],
            noted=len(notes),
            varied=hyperparams.varied([trial.point.params for trial in trials]),
            failures=_failures(failed),
            metric=metric,
            metrics=known,
        )

    def page(self, workspace: str, ref: str, after: int, limit: int, since: int) -> views.Trials:
        """The first ``limit`` trials behind number ``after``; with ``since`` (an earlier page's revision) of
        those only that have changed, which is said of some that have not.

        As numbers do not change, pages have each trial once, whatever the job does meanwhile; what changes
        behind the first page's revision is told of by the next ones since that. Raises NoSuchJob, Ambiguous.
        """
        inputs.require_workspace(self._pachd, workspace)
        job_id = self._jobs.resolve(workspace, ref)
        jobs = self._jobs.explained(workspace, self._jobs.of_set(workspace, job_id))
        read = self._jobs.inputs_of(workspace, job_id)
        found, rows, revision = None, [], 0
        for (stage, job), outcome in zip(jobs, outcomes(jobs), strict=True):
            if stage.trials:
                found = self._read(workspace, job, read)
                revision = found.revision()
                behind = [trial for trial in found.trials if trial.point.number > after]
                told = [trial for trial in behind if not since or _changed(trial, job, since)]
                rows = [_row(trial, job, outcome, found) for trial in told[: limit + 1]]
        return views.Trials(
            job=job_id,
            state=fold(jobs).state,
            count=len(found) if found is not None else 0,
            revision=revision,
            trials=rows[:limit],
            next=rows[limit - 1].trial if len(rows) > limit else None,
        )

    def of_job(self, workspace: str, train: Job, read: inputs.JobInputs) -> Sequence[TrialDatum]:
        """The trials of a train job in order of their numbers, whether their datums exist already or not."""
        with self._guard:
            known = self._ended.get((workspace, train.id))
        return known.trials if known is not None else self._listed(workspace, train, read)

    def _listed(self, workspace: str, train: Job, read: inputs.JobInputs) -> list[TrialDatum]:
        by_params = {
            params_id: datum
            for datum in self._pachd.datums(workspace, train.pipeline, train.id)
            if (params_id := params_of(datum)) is not None
        }
        about = read.descriptions.get(names.HYPER)
        if about is not None:
            points = list(hyperparams.expand(about.grid or {}).trials)
        else:
            # Somebody else wrote the parameters: the files are all there is to know.
            points = [hyperparams.Trial(n, i, {}, "") for n, i in enumerate(sorted(by_params))]
        source = _id_of(read, names.SOURCE)
        data = _id_of(read, names.DATA)
        running = self._running(workspace, train)
        return [
            TrialDatum(
                point=p,
                model=_model(by_params.get(p.params_id), source, data, p.params_id),
                datum=by_params.get(p.params_id),
                running=running.get(p.params_id),
            )
            for p in points
        ]

    def _running(self, workspace: str, train: Job) -> dict[str, RunningDatum]:
        if train.state is not JobState.RUNNING:
            return {}
        found = self._pachd.running(workspace, train.pipeline, train.id)
        return {i: datum for datum in found if (i := params_of_paths(datum.paths)) is not None}

    def stop(self, workspace: str, ref: str, number: int, author: str) -> views.TrialAnswer:
        """Ends one trial as one that failed, and lets the others go on; one that has ended stays as it is.

        Raises NoSuchJob, Ambiguous, NotFound (no such trial), NotYet, NeedsEmbeddedEngine.
        """
        reason = stopped_by(author)
        train, trial = self.find(workspace, ref, number)
        if train.state in (JobState.CREATED, JobState.STARTING):
            raise errors.NotYet(
                f"job {train.id[:8]} has not begun to train: its trials cannot be stopped one by one",
                hint=f"`kaos train stop {train.id[:8]}` stops all of it",
            )
        if not train.state.terminal and trial.datum is None:
            path = names.params_path(trial.point.params_id)
            self._pachd.stop_datum(workspace, train.pipeline, train.id, path, reason)
        detail = self.detail(workspace, train.id)
        found = next(row for row in detail.trials if row.trial == number)
        return views.TrialAnswer(job=train.id, **dict(found))

    def find(self, workspace: str, ref: str, number: int) -> tuple[Job, TrialDatum]:
        """A trial by its number, with its train job.

        Raises NoSuchWorkspace, NoSuchJob, Ambiguous, NotFound (no such trial, or none yet).
        """
        inputs.require_workspace(self._pachd, workspace)
        job_id = self._jobs.resolve(workspace, ref)
        train = with_trials(self._jobs.of_set(workspace, job_id))
        read = self._jobs.inputs_of(workspace, job_id)
        trial = numbered(job_id, self.of_job(workspace, train, read) if train is not None else [], number)
        assert train is not None
        return train, trial

    def select(self, trials: Sequence[TrialDatum], model: str) -> TrialDatum:
        """The trial whose model id starts with ``model``. Raises NoSuchModel, Ambiguous."""
        matches = [t for t in trials if t.model == model] or [t for t in trials if t.model.startswith(model)]
        if not matches:
            raise errors.NoSuchModel(
                f"no model {model!r} in this job", hint="`kaos train info` lists them", model=model
            )
        if len(matches) > 1:
            raise errors.Ambiguous(
                f"{model!r} names {len(matches)} models",
                hint="type more of the id",
                candidates=[t.model for t in matches[:10]],
            )
        return matches[0]

    def _read(self, workspace: str, train: Job, read: inputs.JobInputs) -> _Read:
        """The trials of a train job with what is known of their ends; of an ended one read once."""
        key = (workspace, train.id)
        with self._guard:
            if (known := self._ended.get(key)) is not None:
                return known
        trials = self._listed(workspace, train, read)
        wrote = {t.model: t.datum for t in trials if t.datum is not None and t.datum.state not in FAILED}
        failed = [t.datum for t in trials if t.datum is not None and t.datum.state in FAILED]
        found = _Read(
            trials=trials,
            readings=self._readings.of(workspace, train.id, wrote),
            reasons=self._reasons.of(workspace, train.id, failed),
        )
        if train.state.terminal and len(trials) < _REMEMBERED:
            with self._guard:
                self._ended[key] = found
        return found

    def _build(self, workspace: str, read: inputs.JobInputs) -> Mapping[str, Any] | None:
        """What the image was made with in which a job trains, or which the job makes."""
        made_by = read.commits.get(names.BUILD)
        try:
            return self._pachd.job_spec(workspace, names.BUILD, made_by) if made_by else None
        except errors.NotFound:
            # Its job was deleted.
            return None

    def _settings(self, workspace: str, job_id: str) -> deploys.Settings:
        return deploys.settings_of(self._pachd.job_spec(workspace, names.TRAIN, job_id))


def _changed(trial: TrialDatum, train: Job, since: int) -> bool:
    """Whether it runs, or may have ended when more than ``since`` trials of its job had."""
    if trial.datum is None:
        # That it is never run is news to whoever saw its job run.
        return trial.running is not None or train.state.terminal
    return not trial.datum.ended or trial.datum.ended > since


def numbered(job_id: str, trials: Sequence[TrialDatum], number: int) -> TrialDatum:
    """The trial of this number. Raises NotFound and says which there are."""
    if not 0 <= number < len(trials):
        raise errors.NotFound(
            f"job {job_id[:12]} has no trial {number}",
            hint=f"its trials are numbered 0 to {len(trials) - 1}" if trials else "it has no trials",
            trial=number,
        )
    return trials[number]


def standing(trial: TrialDatum, train: Job, outcome: Outcome) -> tuple[rules.TrialState, str]:
    """The state of a trial and what it waits for or was kept from running by (why it failed is with it).

    ``outcome`` is that of its job.
    """
    state = rules.trial_state(trial.datum, train, trial.running is not None)
    if state == "waiting":
        return state, outcome.reason or "waits for its turn"
    if state == "unrunnable" and train.state is JobState.SUCCESS:
        return state, "left out: only what failed was run again"
    return state, outcome.reason if state in ("killed", "unrunnable") else ""


def _row(trial: TrialDatum, train: Job, outcome: Outcome, results: _Read) -> views.Trial:
    state, reason = standing(trial, train, outcome)
    datum, reading = trial.datum, results.reading(trial)
    why = results.reasons.get(datum.id, "") if datum is not None else ""
    return views.Trial(
        trial=trial.point.number,
        model=trial.model,
        state=state,
        reason=reason or why,
        code=_code(state, why),
        params=dict(trial.point.params),
        metrics={name: metrics.to_json(value) for name, value in reading.metrics.items()},
        notes=list(reading.notes),
        started=rfc3339(trial.running.started) if trial.running is not None else None,
        duration_s=datum.seconds if datum is not None else None,
        image=(datum.image or None) if datum is not None else None,
    )


def _failed(trial: TrialDatum) -> bool:
    return trial.datum is not None and trial.datum.state in FAILED


def _code(state: rules.TrialState, why: str) -> str:
    """The code of a trial that did not succeed; "" for the others."""
    if state == "failed":
        return code_of(why) or Code.FAILED
    return {"killed": Code.KILLED, "unrunnable": Code.UNRUNNABLE}.get(state, "")


def _failures(rows: Sequence[views.Trial]) -> list[views.Failure]:
    """Trials that failed, those together that failed alike; the kind that failed most often first."""
    kinds: dict[tuple[str, str], list[views.Trial]] = {}
    for row in sorted(rows, key=lambda row: row.trial):
        kinds.setdefault((row.code, alike(row.reason)), []).append(row)
    return [
        views.Failure(code=code, reason=found[0].reason, trials=[row.trial for row in found])
        for (code, _), found in sorted(kinds.items(), key=lambda kind: -len(kind[1]))
    ]


@dataclass(frozen=True, slots=True)
class _Read:
    """``readings`` by model, of those that are shown; ``reasons`` by datum, of those that failed."""

    trials: Sequence[TrialDatum]
    readings: Mapping[str, metrics.Reading]
    reasons: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.trials)

    def reading(self, trial: TrialDatum) -> metrics.Reading:
        """The metrics of its model, none if it is not shown."""
        return self.readings.get(trial.model, _NOTHING)

    def revision(self) -> int:
        """So many trials have ended of which all is told: what came later may have more to tell."""
        ended = [trial.datum for trial in self.trials if trial.datum is not None]
        open_ = [
            trial.datum.ended
            for trial in self.trials
            if trial.datum is not None
            and trial.datum.state not in FAILED
            and trial.model not in self.readings
        ]
        if not all(datum.ended for datum in ended):
            # Nobody knows in which order they ended.
            return 0
        return min(open_, default=len(ended) + 1) - 1


def params_of(datum: Datum) -> str | None:
    """The params id of a train datum, from its file in the hyper repo."""
    path = _input(datum, names.HYPER)
    return names.parse_params_path(path) if path is not None else None


def params_of_paths(paths: Iterable[str]) -> str | None:
    """The params id among the paths of a train datum; those of the other inputs do not look like one."""
    return next((i for path in paths if (i := names.parse_params_path(path)) is not None), None)


def _input(datum: Datum, repo: str) -> str | None:
    return next((path for name, path in datum.inputs if name == repo), None)


def _id_of(read: inputs.JobInputs, repo: str) -> str:
    about = read.descriptions.get(repo)
    return about.id if about is not None else ""


def _model(datum: Datum | None, source: str, data: str, params_id: str) -> str:
    if datum is not None:
        # What the datum read beats what the commits say.
        source = (_input(datum, names.BUILD) or source).strip("/").partition("/")[0]
        read = _input(datum, names.DATA) or _input(datum, names.FETCH) or data
        data = read.strip("/").partition("/")[0]
    return names.model_id(source, data, params_id)
