"""What a deploy has to do, decided purely: which inputs change, which pipelines are put, and what to tell
the user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kaos_backend.domain.models import Job, JobState, Pipeline
from kaos_backend.domain.resources import Resources
from kaos_backend.domain.stages import Stage, StageJobs, State, failed, fold, with_jobs
from kaos_formats import names
from kaos_formats.arguments import VARIABLE, parse_arguments
from kaos_formats.names import TIMEOUT
from kaos_formats.quantity import parse_memory

Status = Literal["started", "unchanged", "waiting"]

# In the metadata of the train pipeline: whether its parallelism was asked for or follows from the machine.
ANNOTATION = "kaos.parallelism"
GIVEN, AUTO = "given", "auto"

# What is missing, as a sentence names it, and the option that gives it.
_MISSING = {
    names.SOURCE: ("a source bundle", "deploy a source bundle with -s"),
    names.DATA: ("data", "deploy a data bundle with -d, or a manifest of remote files with -m"),
}


@dataclass(frozen=True, slots=True)
class Current:
    """A workspace before a deploy: ids of the deployed inputs by repo (None: none), and by stage its pipeline
    and the newest job of its branch. ``outdated``: stages whose newest output was made of other inputs.
    """

    inputs: Mapping[str, str | None]
    pipelines: Mapping[str, Pipeline]
    jobs: Mapping[str, Job]
    outdated: Sequence[str] = ()

    @property
    def specs(self) -> dict[str, Mapping[str, Any]]:
        """The specs of the pipelines that there are, by stage."""
        return {name: pipeline.spec for name, pipeline in self.pipelines.items()}

    def spec(self, stage: str) -> Mapping[str, Any] | None:
        """The spec of a stage's pipeline, if there is one."""
        return self.specs.get(stage)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a deploy names, by repo (None: leave as it is), and the spec that each stage which can run shall
    have then. ``other_arguments``: with build arguments that are not those of the deployed pipeline;
    ``other_secrets``: likewise, which builds nothing anew.
    """

    inputs: Mapping[str, str | None]
    specs: Mapping[str, Mapping[str, Any]]
    settings_given: bool
    retry: bool
    other_arguments: bool = False
    other_secrets: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: input repos to open commits in, stages whose pipelines to put (those in ``again`` do once
    more what they did), and the verdict. Nothing to do: ``job`` has the result.
    """

    changed: Sequence[str]
    put: Sequence[str]
    status: Status
    message: str = ""
    hint: str = ""
    job: str | None = None
    again: Sequence[str] = ()

    @property
    def acts(self) -> bool:
        return bool(self.changed or self.put)

    def runs(self, stages: Sequence[Stage]) -> list[str]:
        """Those of ``stages`` that get a job."""
        running: list[str] = []
        for stage in stages:
            if stage.name in self.put or not {*self.changed, *running}.isdisjoint(stage.inputs):
                running.append(stage.name)
        return running


@dataclass(frozen=True, slots=True)
class Settings:
    """What of the spec of a stage with trials the user decides."""

    parallelism: int | None
    parallelism_given: bool
    resources: Resources


def settings_of(spec: Mapping[str, Any] | None) -> Settings:
    """The settings in the spec of a pipeline, or in the details of a job; the defaults without one."""
    if spec is None:
        return Settings(None, False, Resources())
    limits: Mapping[str, Any] = spec.get("resourceLimits") or {}
    annotations = (spec.get("metadata") or {}).get("annotations") or {}
    gpu, memory = limits.get("gpu") or {}, limits.get("memory")
    timeout = ((spec.get("transform") or {}).get("env") or {}).get(TIMEOUT)
    return Settings(
        parallelism=int((spec.get("parallelismSpec") or {}).get("constant", 1)),
        parallelism_given=annotations.get(ANNOTATION) != AUTO,
        resources=Resources(
            cpu=float(limits.get("cpu", 1.0)),
            memory=parse_memory(str(memory)) if memory else None,
            gpu=int(gpu.get("number", 0)),
            tries=int(spec.get("datumTries") or 1),
            timeout_s=float(timeout) if timeout else None,
        ),
    )


def arguments_of(spec: Mapping[str, Any] | None) -> dict[str, str]:
    """The build arguments in the spec of a pipeline, or in the details of a job; {} without one."""
    try:
        return parse_arguments((((spec or {}).get("transform") or {}).get("env") or {}).get(VARIABLE) or "")
    except ValueError:
        return {}


def missing(stages: Sequence[Stage], deployed: Mapping[str, str | None]) -> tuple[str, str]:
    """What the last of ``stages`` still waits for, in words, and what to do about it."""
    there = {repo for repo, content in deployed.items() if content is not None}
    there |= {names.DATA} if names.MANIFEST in there else set()
    what, hint = next(words for repo, words in _MISSING.items() if repo not in there)
    return f"{stages[-1].doing} waits for {what}", hint


def plan(stages: Sequence[Stage], now: Current, want: Wanted) -> Plan:
    """The plan for one deploy; a pure function of all three."""
    able = [stage for stage in stages if stage.name in want.specs]
    changed = [
        repo for repo in names.INPUT_REPOS if want.inputs.get(repo) not in (None, now.inputs.get(repo))
    ]
    new = [s.name for s in able if _is_new(s, now, want, changed)]
    # What the later stages need is made again when it failed or was lost; trials are another matter.
    lost = image_lost(stages, now)
    redo = [
        s.name
        for s in able
        if not s.trials
        and s.name not in new
        and set(changed).isdisjoint(s.inputs)
        and ((lost and s.image) or s.name in now.outdated or _broken(now.jobs.get(s.name)))
    ]
    again = [s.name for s in able if s.image and s.name in redo] if lost else []
    if want.other_arguments:
        # Pachyderm looks at inputs alone to tell what was done before.
        again = [s.name for s in able if s.image and s.name in now.pipelines]
    put = [s.name for s in able if s.name in new or s.name in redo]
    complete = len(able) == len(stages)
    if not complete:
        deployed = {repo: want.inputs.get(repo) or now.inputs.get(repo) for repo in names.INPUT_REPOS}
        message, hint = missing(stages, deployed)
        acts = bool(changed or put)
        last = None if acts else next((now.jobs[s.name].id for s in able[::-1] if s.name in now.jobs), None)
        return Plan(changed, put, "waiting", f"stored; {message}", hint, last, again)
    if changed or new:
        return Plan(changed, put, "started", again=again)
    if again:
        message = "the image of these inputs is gone or damaged: it is built again"
        return Plan([], put, "started", message, again=again)
    return _nothing_new(stages, now, want, put)


def settled(stages: Sequence[Stage], jobs: StageJobs, retry: bool) -> Plan | None:
    """The plan of a deploy that names nothing new, if ``jobs``, those of the newest deploy, say that nothing
    has to run; None if more has to be looked at.
    """
    if not jobs or jobs[-1][0] is not stages[-1]:
        return None
    last = jobs[-1][1]
    whole = fold(jobs)
    if whole.state in ("waiting", "running"):
        return _unchanged("the same deploy is being worked on", "", last)
    if last.state is not JobState.SUCCESS:
        return None
    if not failed(last):
        return _unchanged("these inputs were deployed already and every trial succeeded", "", last)
    if retry:
        return None
    return _unchanged(
        f"these inputs were deployed already; {whole.reason}",
        "`kaos train logs` tells why; `--retry` runs the failed trials again",
        last,
    )


def image_lost(stages: Sequence[Stage], now: Current) -> bool:
    """Whether a pipeline waits because no worker starts from its image, and nothing is about to make that."""
    if any(s.name in now.jobs and not now.jobs[s.name].state.terminal for s in stages if s.image):
        return False
    return any(
        pipeline.state == "crashing" and image and image in pipeline.reason
        for pipeline in now.pipelines.values()
        for image in [str((pipeline.spec.get("transform") or {}).get("image") or "")]
    )


def _unchanged(message: str, hint: str, job: Job) -> Plan:
    return Plan([], [], "unchanged", message, hint, job.id)


def _nothing_new(stages: Sequence[Stage], now: Current, want: Wanted, redo: list[str]) -> Plan:
    if now.outdated:
        message = "what these inputs made was removed: it is made again"
        return Plan([], [*redo, stages[-1].name], "started", message)
    last = now.jobs.get(stages[-1].name)
    jobs = with_jobs(stages, [job for job in now.jobs.values() if last is not None and job.id == last.id])
    found = settled(stages, jobs, want.retry)
    if found is not None:
        return found
    message = ""
    if jobs:
        message = f"the last job of these inputs {_past(fold(jobs).state)}: what is missing runs again"
    return Plan([], [*redo, stages[-1].name], "started", message)


def _is_new(stage: Stage, now: Current, want: Wanted, changed: Sequence[str]) -> bool:
    """Whether the stage's pipeline has to become another one; a spec of a newer kaos alone is no reason."""
    pipeline, spec = now.pipelines.get(stage.name), want.specs[stage.name]
    if pipeline is None:
        return True
    asked = not set(changed).isdisjoint(stage.follows) or (stage.trials and want.settings_given)
    asked = asked or (want.other_arguments and (stage.image or stage.trials))
    asked = asked or (want.other_secrets and not stage.trials)
    asked = asked or repos_read(pipeline.spec) != repos_read(spec)
    return asked and dict(pipeline.spec) != dict(spec)


def ahead(stages: Sequence[Stage], now: Current, want: Wanted, made: Plan) -> list[str]:
    """The stages whose pipelines have to be put before all else, so that they read what this deploy makes.

    A pipeline that is new or reads other repos than before is given its commit on the spot: from what those
    repos hold at that moment, not from what the stages before it are about to make in the same transaction.
    """
    able = [stage for stage in stages if stage.name in want.specs]
    other = [stage for stage in able if stage.name in made.put and _reads_others(stage, now, want)]
    runs = [name for name in made.runs(able) if name in now.pipelines]
    stale = any(not set(runs).isdisjoint(stage.inputs) for stage in other)
    return [stage.name for stage in other] if stale else []


def _reads_others(stage: Stage, now: Current, want: Wanted) -> bool:
    spec = now.spec(stage.name)
    return spec is None or repos_read(spec) != repos_read(want.specs[stage.name])


def repos_read(spec: Mapping[str, Any]) -> set[str]:
    """The repos that the pipeline of a spec of ours reads."""
    given = spec.get("input") or {}
    return {one["pfs"]["repo"] for one in given.get("cross") or [given] if "pfs" in one}


def _broken(job: Job | None) -> bool:
    return job is not None and job.state.terminal and (job.state is not JobState.SUCCESS or failed(job) > 0)


def _past(state: State) -> str:
    words: dict[State, str] = {"failed": "failed", "killed": "was killed", "partial": "failed in part"}
    return words.get(state, "did not succeed")
