"""Old jobs, and old versions of code and data, are forgotten; the bytes go when the store is next tidied.

A removal is a sequence of Pachyderm's own calls, so that history is consistent for every client: a commit
is squashed into its children, which keep their content, or dropped where it is the head of its branch, which
goes back to the parent. Order of writes; after a crash between any of them the same removal goes on:
1. commits of the jobs' outputs, of what failed, of images that nobody has any more
2. the jobs themselves: until then they are listed
3. commits of the versions
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kaos_backend import errors
from kaos_backend.domain.descriptions import Description, parse
from kaos_backend.domain.jobs import resolve
from kaos_backend.domain.models import Commit, DatumState, Job
from kaos_backend.domain.stages import StageJobs, with_jobs
from kaos_backend.pachd.port import Pachd
from kaos_backend.services import inputs, presenters, views
from kaos_backend.services.deploys import PATIENCE_S
from kaos_backend.services.jobs import Jobs
from kaos_backend.services.locks import KeyedLocks
from kaos_backend.services.requests import Remove
from kaos_backend.services.stages import STAGES
from kaos_formats import names

_SHOWN = 5
_KINDS: tuple[names.BundleKind, ...] = (names.SOURCE, names.DATA)
_REPOS = (*_KINDS, names.MANIFEST)
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class _History:
    """All that a workspace has of jobs and of commits, read once. ``fetched``: what was fetched for which
    commit of a manifest.
    """

    jobs: Mapping[str, StageJobs]
    read: Mapping[str, Mapping[str, str]]
    commits: Mapping[str, Sequence[Commit]]
    fetched: Mapping[str, Description]
    current: Mapping[str, str | None]

    def versions(self, kind: str) -> dict[str, list[tuple[Commit, Description]]]:
        """The deployed versions by id, the one deployed last first; their commits, newest first. Those of
        data that was fetched are its manifest's.
        """
        found: dict[str, list[tuple[Commit, Description]]] = {}
        repos = (kind, names.MANIFEST) if kind == names.DATA else (kind,)
        commits = [commit for repo in repos for commit in self.commits[repo]]
        for commit in sorted(commits, key=lambda one: one.started or _NEVER, reverse=True):
            about = self._about(commit)
            if about is not None and about.kind == kind and not commit.error and not commit.open:
                found.setdefault(about.id, []).append((commit, about))
        return found

    def _about(self, commit: Commit) -> Description | None:
        return self.fetched.get(commit.id) if commit.repo == names.MANIFEST else parse(commit.description)

    def users(self, commits: Collection[tuple[str, str]]) -> list[str]:
        """The jobs that were made of these commits of repos, newest first."""
        return [job for job, read in self.read.items() if not read.items().isdisjoint(commits)]


@dataclass(frozen=True, slots=True)
class _Plan:
    jobs: list[str]
    versions: Mapping[str, list[str]]
    commits: list[tuple[str, str]]
    inputs: list[tuple[str, str]]


class Removals:
    """Listing of versions, and the removal of those and of jobs."""

    def __init__(self, pachd: Pachd, jobs: Jobs, locks: KeyedLocks) -> None:
        self._pachd = pachd
        self._jobs = jobs
        self._locks = locks

    def versions(self, workspace: str, kind: names.BundleKind) -> list[views.Version]:
        """What was ever deployed of a kind and is still there, the newest first. Raises NoSuchWorkspace."""
        inputs.require_workspace(self._pachd, workspace)
        history = self._history(workspace)
        found = []
        for version, commits in history.versions(kind).items():
            about = presenters.bundle(commits[0][1])
            assert about is not None
            users = history.users({(commit.repo, commit.id) for commit, _ in commits})
            current = version == history.current[kind]
            found.append(views.Version(**dict(about), current=current, jobs=users))
        return found

    def remove(self, workspace: str, request: Remove) -> views.Removed:
        """Removes jobs with their models and logs, and versions; with ``dry_run`` only says what would go.

        With ``force`` the jobs that were made of a version go with it, and so do logs of jobs that stay.
        All that is refused is refused before anything is removed.

        Raises NoSuchWorkspace, NoSuchJob, NoBundle, Ambiguous, JobOpen, InUse, Busy.
        """
        inputs.require_workspace(self._pachd, workspace)
        with self._locks.hold("workspace", workspace, patience_s=PATIENCE_S):
            history = self._history(workspace)
            plan = self._plan(workspace, history, request)
            if not request.dry_run:
                self._carry_out(workspace, history, plan)
        return views.Removed(
            jobs=plan.jobs,
            source=plan.versions[names.SOURCE],
            data=plan.versions[names.DATA],
            dry_run=request.dry_run,
        )

    def _history(self, workspace: str) -> _History:
        listed: dict[str, list[Job]] = {}
        for stage in STAGES:
            for job in self._pachd.jobs(workspace, stage.name):
                listed.setdefault(job.id, []).append(job)
        jobs = {job: with_jobs(STAGES, found) for job, found in listed.items()}
        newest = sorted(jobs, key=lambda job: max(str(one.created) for _, one in jobs[job]), reverse=True)
        reader = inputs.InputReader(self._pachd, workspace, listing=0)
        repos = (*_REPOS, *(stage.name for stage in STAGES))
        heads = inputs.heads(self._pachd, workspace)
        data = inputs.current_data(self._pachd, workspace, heads)
        source = heads[names.SOURCE]
        commits = {repo: self._pachd.commits(workspace, repo, 0) for repo in repos}
        return _History(
            jobs={job: jobs[job] for job in newest},
            read={job: reader.of_job(job).commits for job in newest},
            commits=commits,
            fetched=self._fetched(workspace, commits),
            current={
                names.SOURCE: source.description.id if source is not None else None,
                names.DATA: data.descriptions[names.DATA].id if data is not None else None,
            },
        )

    def _fetched(self, workspace: str, commits: Mapping[str, Sequence[Commit]]) -> dict[str, Description]:
        """What was fetched, by the id of the manifest's commit; what failed is not there."""
        manifests = {commit.id: parse(commit.description) for commit in commits[names.MANIFEST]}
        found: dict[str, Description] = {}
        for commit in commits[names.FETCH]:
            of = commit.provenance.get(names.MANIFEST, "")
            about = manifests.get(of)
            if about is None or of in found:
                continue
            data = inputs.fetched(self._pachd, workspace, commit, about)
            if data.id:
                read = inputs.JobInputs({names.FETCH: commit.id}, {names.DATA: data})
                found[of] = inputs.counted(self._pachd, workspace, read) or data
        return found

    # -- what goes

    def _plan(self, workspace: str, history: _History, request: Remove) -> _Plan:
        going = {resolve(ref, list(history.jobs)) for ref in request.jobs}
        versions = {kind: [_version(history, kind, ref) for ref in getattr(request, kind)] for kind in _KINDS}
        parts: set[tuple[str, str]] = set()
        for kind, ids in versions.items():
            for version in dict.fromkeys(ids):
                found = {(commit.repo, commit.id) for commit, _ in history.versions(kind)[version]}
                users = [job for job in history.users(found) if job not in going]
                if version == history.current[kind]:
                    raise _current(kind, version)
                if users and not request.force:
                    raise _has_made(kind, version, users)
                going |= set(users)
                parts |= found
        jobs = [job for job in history.jobs if job in going]
        self._check_open(history, jobs)
        if not request.force:
            self._check_shared(workspace, history, jobs)
        commits = _outputs(history, going, parts)
        return _Plan(
            jobs,
            {kind: list(dict.fromkeys(ids)) for kind, ids in versions.items()},
            commits,
            [(repo, one.id) for repo in _REPOS for one in history.commits[repo] if (repo, one.id) in parts],
        )

    def _check_open(self, history: _History, going: Sequence[str]) -> None:
        ended = {job: all(one.state.terminal for _, one in stages) for job, stages in history.jobs.items()}
        if running := [job for job in going if not ended[job]]:
            raise errors.JobOpen(
                f"job {_shown(running)} has not ended",
                hint=f"`kaos train stop {running[0][:8]}` ends it; what its finished trials made is kept",
                jobs=running,
            )
        for stage in STAGES:
            for commit in history.commits[stage.name]:
                if commit.open and commit.parent in going:
                    raise errors.JobOpen(
                        f"job {commit.id[:8]}, which comes after job {commit.parent[:8]}, has not ended",
                        hint=f"`kaos train wait {commit.id[:8]}` waits for that",
                        jobs=[commit.id],
                    )

    def _check_shared(self, workspace: str, history: _History, going: Sequence[str]) -> None:
        """Raises InUse if a job that stays has models of one that goes: their logs are with that."""
        for job, stages in history.jobs.items():
            for stage, one in stages:
                if job in going or not stage.trials or not one.skipped:
                    continue
                found = [
                    datum.job
                    for datum in self._pachd.datums(workspace, stage.name, job)
                    if datum.state is DatumState.SKIPPED and datum.job in going
                ]
                if found:
                    count = f"{len(found)} models" if len(found) > 1 else "a model"
                    raise errors.InUse(
                        f"job {found[0][:8]} trained {count} that job {job[:8]} shares, and has their logs",
                        hint=f"--force removes it: the models of job {job[:8]} stay, those logs go",
                        jobs=[job],
                    )

    # -- and how

    def _carry_out(self, workspace: str, history: _History, plan: _Plan) -> None:
        for repo, commit in plan.commits:
            self._pachd.forget_commit(workspace, repo, commit)
            self._pachd.forget_commit(workspace, names.meta_repo(repo), commit)
        for job in plan.jobs:
            # The last stage first: what is listed has trials as long as anything is.
            for stage, _ in reversed(history.jobs[job]):
                self._pachd.delete_job(workspace, stage.name, job)
        for repo, commit in plan.inputs:
            self._pachd.forget_commit(workspace, repo, commit)


def _outputs(
    history: _History, going: Collection[str], parts: Collection[tuple[str, str]]
) -> list[tuple[str, str]]:
    """The commits of pipelines that go, those first that others were made from last."""
    gone = set(parts)
    found: list[tuple[str, str]] = []
    kept = [read for job, read in history.read.items() if job not in going]
    for stage in STAGES:
        for commit in history.commits[stage.name]:
            made_of_it = any((repo, id_) in gone for repo, id_ in commit.provenance.items())
            its_own = commit.id in going and (stage.trials or bool(commit.error))
            read = any(one.get(stage.name) == commit.id for one in kept)
            if made_of_it or (its_own and not read):
                gone.add((stage.name, commit.id))
                found.append((stage.name, commit.id))
    return [one for stage in reversed(STAGES) for one in found if one[0] == stage.name]


def _version(history: _History, kind: str, ref: str) -> str:
    """The id of a version that a full id or a unique prefix names. Raises NoBundle, Ambiguous."""
    matches = [one for one in history.versions(kind) if ref and one.startswith(ref)]
    if ref in matches:
        return ref
    if not matches:
        raise errors.NoBundle(
            f"no version {ref!r} of the {kind}", hint=f"`kaos {kind} list` shows what there is"
        )
    if len(matches) > 1:
        raise errors.Ambiguous(
            f"{ref!r} names {len(matches)} versions of the {kind}",
            hint="type more digits of the id",
            candidates=matches[:_SHOWN],
        )
    return matches[0]


def _current(kind: str, version: str) -> errors.InUse:
    return errors.InUse(
        f"{kind} {version[:6]} is the current one",
        hint=f"deploy another {kind} first; `kaos workspace kill` removes everything",
    )


def _has_made(kind: str, version: str, users: Sequence[str]) -> errors.InUse:
    them = "these jobs" if len(users) > 1 else "that job"
    return errors.InUse(
        f"{kind} {version[:6]} is what the models of job {_shown(users)} were made of",
        hint=f"--force removes {them}, with models and logs, as well",
        jobs=list(users),
    )


def _shown(jobs: Sequence[str]) -> str:
    return ", ".join(job[:8] for job in jobs[:_SHOWN]) + (", …" if len(jobs) > _SHOWN else "")
