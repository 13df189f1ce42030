"""The stages of a workspace, and what their jobs in one deploy mean to a user. Pure.

A stage is a pipeline of kaos's own. A deploy runs its stages in order; each may wait for those before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from kaos_backend.domain.models import Job, JobState
from kaos_backend.domain.resources import Resources
from kaos_formats.endings import Code, code_of, detail

# Of a deploy, of one of its stages, of a trial; not each of them can be in every one.
State = Literal["waiting", "running", "success", "partial", "failed", "killed"]
StageState = Literal["waiting", "running", "success", "partial", "failed", "killed", "unrunnable"]

_DATUM = re.compile(r"\bdatum(s?)\b")
_ONE_DATUM = re.compile(r"^1 datum ")
_RUNNING = frozenset({JobState.RUNNING, JobState.FINISHING, JobState.EGRESSING})


@dataclass(frozen=True, slots=True)
class Target:
    """What the specs of a workspace's stages follow from. ``auto``: nobody asked for this parallelism.

    ``builder``: who makes images here, ``arguments``: with which build arguments,
    ``secrets``: and which build secrets, by their ids. ``fetched``: the data is that of a manifest;
    ``fetching``: the variables that say what may be fetched.
    """

    workspace: str
    source: str
    builder: str
    resources: Resources
    parallelism: int
    auto: bool
    arguments: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    fetched: bool = False
    fetching: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stage:
    """``name`` is that of its pipeline and of the repo with its output, ``doing`` what it is at meanwhile.

    ``inputs``: the repos that it reads, of inputs and of earlier stages. ``follows``: those of them whose
    deployed ids are named in its spec (``spec`` makes that, as CreatePipelineRequest JSON). ``trials``: each
    of its datums is a trial, whose output is a model, and which is granted what the user asks for; a stage
    without makes one thing, which the later ones need: ``image``: the image of the trials.
    """

    name: str
    doing: str
    inputs: tuple[str, ...]
    follows: tuple[str, ...]
    spec: Callable[[Target], Mapping[str, Any]]
    trials: bool = False
    image: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a stage of a deploy stands, and why where there is a why: `code` is that of an ending."""

    state: StageState
    reason: str = ""
    code: str = ""

    @property
    def active(self) -> bool:
        return self.state in ("waiting", "running")


@dataclass(frozen=True, slots=True)
class Whole:
    """Where a deploy stands as a whole, and why."""

    state: State
    reason: str = ""
    code: str = ""


# A deploy's jobs with their stages, in the order of the stages; never empty.
StageJobs = Sequence[tuple[Stage, Job]]


def runnable(stages: Sequence[Stage], deployed: Mapping[str, str | None]) -> list[Stage]:
    """The stages that have all they read, ``deployed`` being the ids of what the input repos hold."""
    there = {repo for repo, content in deployed.items() if content is not None}
    found: list[Stage] = []
    for stage in stages:
        if there.issuperset(stage.inputs):
            found.append(stage)
            there.add(stage.name)
    return found


def with_jobs(stages: Sequence[Stage], jobs: Sequence[Job]) -> list[tuple[Stage, Job]]:
    """The jobs of one deploy with their stages, in the order of these; others' jobs are left out."""
    by_pipeline = {job.pipeline: job for job in jobs}
    return [(stage, by_pipeline[stage.name]) for stage in stages if stage.name in by_pipeline]


def failed(job: Job) -> int:
    """Datums without a result: ``err_cmd`` turns failed ones into recovered ones, so both count."""
    return job.failed + job.recovered


def outcomes(jobs: StageJobs) -> list[Outcome]:
    """Where each stage of one deploy stands."""
    found: list[Outcome] = []
    for stage, job in jobs:
        outcome = _outcome(stage, job)
        lacking = _lacking(stage, jobs, found)
        # Pachyderm does not say what an open job waits for, and names commits where an input failed.
        if outcome.state == "waiting":
            name = next((name for name, earlier in lacking if earlier.active), None)
            if name is not None:
                outcome = Outcome("waiting", outcome.reason or f"waits for the {name}")
        elif outcome.state == "unrunnable":
            lost = next((told for told in lacking if not told[1].active), None)
            if lost is not None:
                ended = "was killed" if lost[1].state == "killed" else "failed"
                outcome = Outcome("unrunnable", f"the {lost[0]} {ended}", Code.UNRUNNABLE)
        found.append(outcome)
    return found


def _lacking(stage: Stage, jobs: StageJobs, found: Sequence[Outcome]) -> list[tuple[str, Outcome]]:
    """The names of those earlier stages that one reads and that have not succeeded, with how they stand."""
    earlier = zip(jobs, found, strict=False)
    return [
        (one.name, told) for (one, _), told in earlier if one.name in stage.inputs and told.state != "success"
    ]


def fold(jobs: StageJobs) -> Whole:
    """The state of a deploy and its reason: as long as a stage is at work, or still can be, that of this one;
    then that of the first which has not succeeded.
    """
    found = outcomes(jobs)
    active = [
        outcome
        for n, ((stage, _), outcome) in enumerate(zip(jobs, found, strict=True))
        if outcome.active and all(told.active for _, told in _lacking(stage, jobs, found[:n]))
    ]
    if active:
        running = [outcome for outcome in active if outcome.state == "running"]
        return Whole("running" if running else "waiting", (running or active)[0].reason)
    for (stage, _), outcome in zip(jobs, found, strict=True):
        state, reason, code = outcome.state, outcome.reason, outcome.code
        if state == "success":
            continue
        if state == "unrunnable":
            return Whole("failed", reason, code)
        if state == "failed" and not stage.trials:
            return Whole("failed", f"the {stage.name} failed: {reason}".removesuffix(": "), code)
        return Whole(state, reason, code)
    return Whole("success")


def _in_words(stage: Stage, reason: str) -> str:
    """Pachyderm's reason in a workspace's words: a datum is a trial, or all that there is to the stage."""
    return _DATUM.sub(r"trial\1", reason) if stage.trials else _ONE_DATUM.sub("", reason)


def _outcome(stage: Stage, job: Job) -> Outcome:
    if not job.state.terminal:
        state: StageState = "running" if job.state in _RUNNING else "waiting"
        return Outcome(state, _in_words(stage, job.reason))
    if job.state is JobState.KILLED:
        return Outcome("killed", _in_words(stage, job.reason), Code.KILLED)
    if job.state is JobState.UNRUNNABLE:
        return Outcome("unrunnable", job.reason, Code.UNRUNNABLE)
    count = failed(job)
    if job.state is not JobState.SUCCESS:
        return _ended(stage, detail(job.reason) or "failed")
    if not count:
        return Outcome("success")
    # The embedded engine says why datums failed; Pachyderm says nothing of a job that has succeeded.
    why = f": {job.reason}" if job.reason else ""
    if not stage.trials:
        return _ended(stage, job.reason)
    code = code_of(job.reason) or Code.FAILED
    if job.processed + job.skipped:
        return Outcome("partial", f"{count} of {job.total} trials failed{why}", code)
    return Outcome(
        "failed", (f"all {count} trials" if count > 1 else "the only trial") + f" failed{why}", code
    )


def _ended(stage: Stage, reason: str) -> Outcome:
    """What failed, for ``reason``."""
    if stage.trials:
        return Outcome("failed", reason, code_of(reason) or Code.FAILED)
    # What its program said last tells all; its exit code tells nothing.
    said = reason.partition(": ")[2] if code_of(reason) == Code.EXIT_CODE else reason
    return Outcome("failed", said or reason, Code.BUILD_FAILED if stage.image else Code.FETCH_FAILED)
