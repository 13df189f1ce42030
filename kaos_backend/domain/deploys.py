"""What a deploy has to do, decided purely: which inputs change, which pipelines are put, and what to tell
the user.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kaos_backend.domain import jobs
from kaos_backend.domain.models import Job, JobState, Pipeline
from kaos_backend.domain.resources import Resources
from kaos_formats.quantity import parse_memory

Status = Literal["started", "unchanged", "waiting"]

# In the metadata of the train pipeline: whether its parallelism was asked for or follows from the machine.
ANNOTATION = "kaos.parallelism"
GIVEN, AUTO = "given", "auto"
DESCRIPTION_MARKER = '{"kaos":'


@dataclass(frozen=True, slots=True)
class Current:
    """A workspace before a deploy: ids of the deployed inputs (None: none), its pipelines, their newest
    jobs.
    """

    source: str | None
    data: str | None
    hyper: str | None
    build: Pipeline | None
    train: Pipeline | None
    build_job: Job | None
    train_job: Job | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a deploy names (None: leave as it is) and the specs that the workspace shall have then."""

    source: str | None
    data: str | None
    hyper: str | None
    build_spec: Mapping[str, Any] | None
    train_spec: Mapping[str, Any] | None
    settings_given: bool
    retry: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: commits to open, pipelines to put, and the verdict. Nothing to do: ``job`` has the
    result.
    """

    source: bool
    data: bool
    hyper: bool
    put_build: bool
    put_train: bool
    status: Status
    message: str
    hint: str = ""
    job: str | None = None

    @property
    def acts(self) -> bool:
        return self.source or self.data or self.hyper or self.put_build or self.put_train

    @property
    def parts(self) -> list[str]:
        flags = (("source", self.source), ("data", self.data), ("hyper", self.hyper))
        return [name for name, changed in flags if changed]


@dataclass(frozen=True, slots=True)
class Settings:
    """What of the train pipeline's spec the user decides."""

    parallelism: int | None
    parallelism_given: bool
    resources: Resources


def settings_of(train: Pipeline | None) -> Settings:
    """The settings that the current train pipeline has; the defaults without one."""
    if train is None:
        return Settings(None, False, Resources())
    limits: Mapping[str, Any] = train.spec.get("resourceLimits") or {}
    annotations = (train.spec.get("metadata") or {}).get("annotations") or {}
    gpu, memory = limits.get("gpu") or {}, limits.get("memory")
    return Settings(
        parallelism=int((train.spec.get("parallelismSpec") or {}).get("constant", 1)),
        parallelism_given=annotations.get(ANNOTATION) != AUTO,
        resources=Resources(
            cpu=float(limits.get("cpu", 1.0)),
            memory=parse_memory(str(memory)) if memory else None,
            gpu=int(gpu.get("number", 0)),
        ),
    )


def plan(now: Current, want: Wanted) -> Plan:
    """The plan for one deploy; a pure function of both."""
    source = want.source is not None and want.source != now.source
    data = want.data is not None and want.data != now.data
    builds = want.source is not None or now.source is not None
    trains = builds and (want.data is not None or now.data is not None)
    # Without a grid there is one trial with the training code's own defaults.
    hyper = want.hyper is not None and want.hyper != now.hyper
    new_build = builds and _differs(now.build, want.build_spec) and (source or now.build is None)
    settings = want.settings_given and _differs(now.train, want.train_spec)
    new_train = trains and (now.train is None or source or settings) and _differs(now.train, want.train_spec)
    redo_build = builds and not new_build and now.build is not None and _broken(now.build_job)
    if source or data or hyper or new_build or new_train:
        return Plan(
            source, data, hyper, new_build or redo_build, new_train,
            status="started" if trains else "waiting",
            message="" if trains else _missing(builds),
            hint="" if trains else _missing_hint(builds),
        )  # fmt: skip
    return _nothing_new(now, want, trains, builds, redo_build)


def settled(build_job: Job | None, train_job: Job | None, retry: bool) -> Plan | None:
    """The plan of a deploy that names nothing new, if the newest train job says that nothing has to run;
    None if more has to be looked at. ``build_job`` belongs to the same deploy as ``train_job``.
    """
    if train_job is None:
        return None
    outcome = jobs.fold(build_job, train_job)
    if outcome.active:
        return _unchanged("the same deploy is being worked on", "", train_job)
    if train_job.state is not JobState.SUCCESS:
        return None
    if not jobs.failed_trials(train_job):
        return _unchanged("these inputs were deployed already and every trial succeeded", "", train_job)
    if retry:
        return None
    return _unchanged(
        f"these inputs were deployed already; {outcome.reason}",
        "`kaos train logs` tells why; `--retry` runs the failed trials again",
        train_job,
    )


def _unchanged(message: str, hint: str, job: Job) -> Plan:
    return Plan(False, False, False, False, False, "unchanged", message, hint, job.id)


def _nothing_new(now: Current, want: Wanted, trains: bool, builds: bool, redo_build: bool) -> Plan:
    if not trains:
        build = None if redo_build or now.build_job is None else now.build_job.id
        return Plan(
            False, False, False, redo_build, False, "waiting", _missing(builds), _missing_hint(builds), build
        )
    job = now.train_job
    build_job = now.build_job if job is not None and now.build_job and now.build_job.id == job.id else None
    found = settled(build_job, job, want.retry)
    if found is not None:
        return found
    message = ""
    if job is not None:
        outcome = jobs.fold(build_job, job)
        message = f"the last job of these inputs {_past(outcome.state)}: what is missing runs again"
    return Plan(False, False, False, redo_build, True, "started", message)


def _differs(pipeline: Pipeline | None, spec: Mapping[str, Any] | None) -> bool:
    return spec is not None and (pipeline is None or dict(pipeline.spec) != dict(spec))


def _broken(job: Job | None) -> bool:
    return (
        job is not None
        and job.state.terminal
        and (job.state is not JobState.SUCCESS or jobs.failed_trials(job) > 0)
    )


def _missing(builds: bool) -> str:
    return f"stored; training waits for {'data' if builds else 'a source bundle'}"


def _missing_hint(builds: bool) -> str:
    return "deploy a data bundle with -d" if builds else "deploy a source bundle with -s"


def _past(state: jobs.State) -> str:
    return {"failed": "failed", "killed": "was killed", "partial": "failed in part"}.get(
        state, "did not succeed"
    )
