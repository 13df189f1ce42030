"""Deploys: one commit set of whatever changed, and the pipelines that turn it into models.

Order of writes, and what a crash after each leaves (``services.recovery`` cleans up):
1. bundles staged (``services.bundles``): a finished staging commit that nobody reads; kept for a retry,
swept later
2. transaction (``services.commit``): in the embedded engine input commits with their content, the jobs that
read them, and the end of the staging commits. Elsewhere, and for a grid of thousands, the commits are open
and their jobs wait; recovery fills them from the staging commits, or with the grid
3. there: content copied by reference, commit by commit: the rest stays open; recovery fills and finishes it
4. there: staging branches and commits dropped: leftovers; recovery drops them
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kaos_backend import errors
from kaos_backend.domain import deploys, hyperparams, resources
from kaos_backend.domain.machine import builder_of, check_fits, machine_of
from kaos_backend.domain.models import Commit, Job, PutPipeline
from kaos_backend.domain.stages import Target, with_jobs
from kaos_backend.pachd.port import Pachd
from kaos_backend.services import inputs, presenters, stages, views
from kaos_backend.services.asked import Asked, look
from kaos_backend.services.bundles import Bundles
from kaos_backend.services.commit import Part, commit_inputs
from kaos_backend.services.jobs import stop
from kaos_backend.services.locks import KeyedLocks
from kaos_backend.services.parts import Parts
from kaos_backend.services.recovery import Recovery
from kaos_backend.services.requests import Deploy, check_author
from kaos_backend.services.stages import STAGES
from kaos_backend.services.staging import upload_key
from kaos_formats import build_secrets, names
from kaos_formats.arguments import check_arguments, variant

PATIENCE_S = 60.0
_GOES_BACK = "the last manifest could not be fetched: the data is what was there before"
REPLACED = "stopped for another deploy (--replace)"
# Jobs of a pipeline run in turn: what is open is among the newest.
_NEWEST = 100
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class _Done:
    """What a deploy came to: the job that has or will have the result, what builds are given, what was
    deployed, and how many trials run at a time (None: nobody looked).
    """

    plan: deploys.Plan
    job: str | None
    arguments: Mapping[str, str]
    secrets: tuple[str, ...]
    parts: Sequence[Part] = ()
    parallelism: int | None = None


class Deploys:
    """The deploy use case; one at a time per workspace."""

    def __init__(
        self,
        pachd: Pachd,
        bundles: Bundles,
        recovery: Recovery,
        locks: KeyedLocks,
        now: Callable[[], datetime],
        fetching: Mapping[str, str] | None = None,
    ) -> None:
        """``fetching``: the variables that say what may be fetched."""
        self._pachd = pachd
        self._bundles = bundles
        self._recovery = recovery
        self._locks = locks
        self._now = now
        self._fetching = fetching or {}

    def deploy(self, workspace: str, request: Deploy) -> views.DeployResult:
        """Deploys; the same inputs again start nothing. Raises NoSuchWorkspace, NoBundle, InvalidHyper,
        InvalidResources, NeverFits, JobOpen, Busy; after a refusal for what was asked, the bundles that were
        staged for it are gone.
        """
        self._recovery.recover_if_dirty(workspace)
        inputs.check_workspace(workspace)
        try:
            grid = None if request.hyper is None else hyperparams.parse_grid(request.hyper)
            _check_settings(request)
            with self._locks.hold("workspace", workspace, patience_s=PATIENCE_S):
                return self._deploy(workspace, request, grid)
        except (errors.Busy, errors.JobOpen):
            # The same may be asked again in a moment.
            raise
        except errors.KaosError as error:
            if error.http_status >= 500:
                self._recovery.mark_dirty(workspace)
            elif not isinstance(error, errors.NoSuchWorkspace):
                self._discard_staged(workspace, request)
            raise
        except BaseException:
            self._recovery.mark_dirty(workspace)
            raise

    def _deploy(self, workspace: str, request: Deploy, grid: hyperparams.Grid | None) -> views.DeployResult:
        ask = look(self._pachd, workspace, request, grid, self._bundles.staging.owner)
        done = self._settled(workspace, ask) if len(ask.able) == len(ask.stages) else None
        if done is None:
            done = self._put(workspace, ask)
        changed = {part.repo: part.description for part in done.parts}
        shown = {repo: h.description if h else None for repo, h in ask.heads.items()} | changed
        if names.MANIFEST in changed:
            shown[names.DATA] = None
        elif names.DATA in changed:
            shown[names.MANIFEST] = None
        running = done.plan.runs(ask.able)
        trains = any(stage.trials for stage in STAGES if stage.name in running)
        return views.DeployResult(
            job=done.job,
            status=done.plan.status,
            message=done.plan.message or (_GOES_BACK if ask.goes_back else ""),
            hint=done.plan.hint,
            parts=done.plan.changed,
            source=presenters.bundle(shown[names.SOURCE]),
            data=presenters.bundle(shown[names.DATA]),
            manifest=presenters.bundle(shown[names.MANIFEST]),
            grid=presenters.grid(ask.grid, shown[names.HYPER]),
            stages=running,
            parallelism=done.parallelism if trains else None,
            build_args=presenters.arguments(done.arguments),
            build_secrets=done.secrets,
        )

    def _put(self, workspace: str, ask: Asked) -> _Done:
        """The long way: plan what has to be done, and do it."""
        request, able = ask.request, ask.able
        now = self._current(workspace, ask)
        target = self._target(workspace, ask, now)
        specs = {stage.name: stage.spec(target) for stage in able}
        before = now.spec(names.BUILD)
        want = deploys.Wanted(
            ask.wanted,
            specs,
            request.settings_given,
            request.retry,
            target.arguments != deploys.arguments_of(before),
            target.secrets != _secrets_of(now.specs),
        )
        plan = deploys.plan(ask.stages, now, want)
        making = Parts(self._bundles, workspace, request.author, self._now())
        parts = making.of_bundles(plan.changed, ask.bundles, ask.heads, request.refresh)
        if names.HYPER in plan.changed and ask.grid is not None:
            parts.append(making.of_grid(ask.grid))
        self._spare(workspace, [name for name in plan.put if name in now.pipelines], replace=request.replace)
        # Only now that nothing is left to refuse: what is in force keeps its secrets otherwise.
        secret = build_secrets.secret_name(workspace)
        if request.build_secrets:
            # A pipeline cannot name one that is not there; what is there by then may be used.
            values = {name: value.get_secret_value() for name, value in request.build_secrets.items()}
            self._pachd.put_secret(secret, values)
        job = plan.job
        if plan.acts:
            ahead = deploys.ahead(ask.stages, now, want, plan)
            self._put_ahead(workspace, ahead, specs)
            puts = [name for name in plan.put if name not in ahead]
            pipelines = [PutPipeline(specs[name], reprocess=name in plan.again) for name in puts]
            started = commit_inputs(
                self._pachd, self._bundles.staging, self._locks, workspace, parts, pipelines
            )
            job = started if plan.runs(able) else None
        if request.build_secrets == {}:
            self._pachd.drop_secret(secret)
        return _Done(plan, job, target.arguments, target.secrets, parts, target.parallelism)

    def _put_ahead(
        self, workspace: str, ahead: Sequence[str], specs: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Put pipelines that would not read what the deploy makes otherwise; the jobs that this alone starts,
        on what was there before, are forgotten.
        """
        if not ahead:
            return
        pipelines = [PutPipeline(specs[name]) for name in ahead]
        begun = commit_inputs(self._pachd, self._bundles.staging, self._locks, workspace, [], pipelines)
        for name in reversed(ahead):
            self._pachd.stop_job(workspace, name, begun, REPLACED)
            self._pachd.delete_job(workspace, name, begun)

    def _spare(self, workspace: str, updated: Sequence[str], *, replace: bool) -> None:
        """Pachyderm ends the open jobs of a pipeline that is updated: nobody loses a job that way unasked.

        Raises JobOpen unless they may be stopped.
        """
        open_jobs = [
            job
            for name in updated
            for job in self._pachd.jobs(workspace, name, _NEWEST)
            if not job.state.terminal
        ]
        ids = list(dict.fromkeys(job.id for job in open_jobs))
        if not ids:
            return
        if not replace:
            raise _would_end(ids)
        for job_id in ids:
            stop(self._pachd, workspace, with_jobs(STAGES, self._pachd.job_set(workspace, job_id)), REPLACED)

    def _settled(self, workspace: str, ask: Asked) -> _Done | None:
        """The short way for a deploy of what is there already: one more look, at the newest jobs."""
        request, here = ask.request, ask.stages
        if (
            request.settings_given
            or request.for_builds
            or any(i not in (None, ask.ids[repo]) for repo, i in ask.wanted.items())
        ):
            return None
        jobs = self._pachd.jobs(workspace, number=len(STAGES))
        last = next((job.id for job in jobs if job.pipeline == here[-1].name), None)
        found = deploys.settled(here, with_jobs(here, [j for j in jobs if j.id == last]), request.retry)
        if found is None:
            return None
        outputs = self._outputs(workspace, [stage.name for stage in ask.able])
        newest = outputs.get(here[-1].name)
        if newest is None or newest.id != last or _outdated(ask, outputs):
            # The newest job has retried an older one, or what came after it was removed.
            return None
        specs = {p.name: p.spec for p in self._pachd.pipelines(workspace)}
        arguments = deploys.arguments_of(specs.get(names.BUILD))
        builder = builder_of(self._pachd.cluster())
        image = names.image_name(workspace, ask.source, builder, variant(arguments))
        if (specs.get(names.TRAIN, {}).get("transform") or {}).get("image") != image:
            return None  # another builder is used now
        waits = any(not job.state.terminal for job in jobs)
        lost = waits and deploys.image_lost(here, self._current(workspace, ask))
        if lost:
            return None
        return _Done(found, found.job, arguments, _secrets_of(specs))

    def _current(self, workspace: str, ask: Asked) -> deploys.Current:
        pipelines = {p.name: p for p in self._pachd.pipelines(workspace) if p.name in stages.NAMES}
        outputs = self._outputs(workspace, pipelines)
        jobs = {
            name: job
            for name in pipelines
            if (job := self._job_of(workspace, name, outputs.get(name))) is not None
        }
        return deploys.Current(ask.ids, pipelines, jobs, _outdated(ask, outputs))

    def _job_of(self, workspace: str, pipeline: str, output: Commit | None) -> Job | None:
        """The newest job of a pipeline, but for those that have retried an older one."""
        newest = next(iter(self._pachd.jobs(workspace, pipeline, 1)), None)
        if newest is None or output is None or output.id == newest.id:
            return newest
        found = [job for job in self._pachd.job_set(workspace, output.id) if job.pipeline == pipeline]
        return next(iter(found), newest)

    def _outputs(self, workspace: str, pipelines: Iterable[str]) -> dict[str, Commit]:
        """The newest output of each pipeline that has one."""
        found: dict[str, Commit] = {}
        for name in pipelines:
            with suppress(errors.NotFound):
                found[name] = self._pachd.commit(workspace, name, names.MASTER)
        return found

    def _target(self, workspace: str, ask: Asked, now: deploys.Current) -> Target:
        request = ask.request
        trials = next((stage.name for stage in ask.able if stage.trials), None)
        settings = deploys.settings_of(now.spec(trials) if trials else None)
        arguments = request.build_args
        if arguments is None:
            arguments = deploys.arguments_of(now.spec(names.BUILD))
        secrets = _secrets_of(now.specs)
        if request.build_secrets is not None:
            secrets = tuple(sorted(request.build_secrets))
        granted = _granted(settings.resources, request)
        parallelism = request.parallelism or (settings.parallelism if settings.parallelism_given else None)
        cluster = self._pachd.cluster()
        machine = machine_of(cluster) if trials else {}
        check_fits(machine, granted)
        auto = parallelism is None
        if parallelism is None:
            parallelism = resources.default_parallelism(machine.get("cpus"), granted.cpu)
        return Target(
            workspace,
            ask.source,
            builder_of(cluster),
            granted,
            parallelism,
            auto,
            arguments,
            secrets,
            ask.fetched,
            self._fetching,
        )

    def _discard_staged(self, workspace: str, request: Deploy) -> None:
        """A refused deploy leaves no trace: not even the bundles that were sent for it."""
        for kind, bundle_id in request.bundles.items():
            if names.is_id(bundle_id):
                key = upload_key(workspace, kind, bundle_id)
                with suppress(errors.Busy), self._locks.hold(*key, patience_s=0):
                    self._bundles.staging.discard_quietly(workspace, kind, bundle_id)


def _outdated(ask: Asked, outputs: Mapping[str, Commit]) -> list[str]:
    """The stages whose newest output was made of other inputs: that of the current ones was removed."""
    read = {
        repo: head.commit.id
        for repo, head in ask.heads.items()
        if head is not None and ask.ids[repo] is not None
    }
    found: list[str] = []
    for stage in ask.able:
        output = outputs.get(stage.name)
        if output is not None:
            if any(output.provenance.get(repo) != read[repo] for repo in stage.inputs if repo in read):
                found.append(stage.name)
            read[stage.name] = output.id
    return found


def _secrets_of(specs: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The ids of the secrets that builds and fetches are given, by the specs of these."""
    given = (specs.get(name) for name in (names.BUILD, names.FETCH))
    return tuple(sorted({one for spec in given for one in build_secrets.ids_of(spec)}))


def _would_end(ids: Sequence[str]) -> errors.JobOpen:
    shown = ", ".join(job_id[:8] for job_id in ids[:_SHOWN]) + (", …" if len(ids) > _SHOWN else "")
    what = f"job {shown} has not ended: this deploy would stop it"
    if len(ids) > 1:
        what = f"jobs {shown} have not ended: this deploy would stop them"
    return errors.JobOpen(
        f"{what}, as it changes the code, the resources, or the repo of the data that training runs with",
        hint="--after deploys when that has ended; --replace stops it now, finished trials are kept",
        jobs=list(ids),
    )


def _check_settings(request: Deploy) -> None:
    if request.parallelism is not None:
        resources.check_parallelism(request.parallelism)
    _granted(resources.Resources(), request)
    check_arguments(request.build_args or {})
    values = request.build_secrets or {}
    build_secrets.check_build_secrets({name: value.get_secret_value() for name, value in values.items()})
    check_author(request.author)


def _granted(current: resources.Resources, request: Deploy) -> resources.Resources:
    asked = request.resources
    return (
        current
        if asked is None
        else resources.apply(current, asked.cpu, asked.memory, asked.gpu, asked.tries, asked.timeout_s)
    )
