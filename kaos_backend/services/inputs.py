"""What is deployed in a workspace, and what a job was made of, read from commits and their descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from kaos_backend import errors
from kaos_backend.domain.descriptions import Description, parse
from kaos_backend.domain.models import Commit, Project
from kaos_backend.pachd.port import Pachd
from kaos_backend.services.stages import STAGES
from kaos_formats import names
from kaos_formats.tree import Tree, parse_tree


@dataclass(frozen=True, slots=True)
class Head:
    """The current commit of one input repo and what it says about itself.

    ``behind``: something was deployed since that failed, and its pipelines read that. It has to be committed
    again before they read this.
    """

    commit: Commit
    description: Description
    behind: bool = False


def check_workspace(workspace: str) -> None:
    """Raises NoSuchWorkspace for names that no workspace can have."""
    try:
        names.check_workspace(workspace)
    except errors.InvalidName as error:
        raise _no_workspace(workspace) from error


def require_workspace(pachd: Pachd, workspace: str) -> Project:
    """The project of a workspace. Raises NoSuchWorkspace (also for names that no workspace can have)."""
    check_workspace(workspace)
    try:
        return pachd.project(workspace)
    except errors.NotFound as error:
        raise _no_workspace(workspace) from error


def _no_workspace(workspace: str) -> errors.NoSuchWorkspace:
    return errors.NoSuchWorkspace(
        f"no workspace {workspace!r}",
        hint="`kaos workspace list` shows what there is, `kaos workspace create` makes one",
        workspace=workspace,
    )


def head(pachd: Pachd, workspace: str, repo: str) -> Head | None:
    """What was deployed last to ``repo``; None if nothing (usable) was yet."""
    commit = _find(pachd, workspace, repo, names.MASTER)
    return None if commit is None else _as_head(commit)


def _find(pachd: Pachd, workspace: str, repo: str, ref: str) -> Commit | None:
    try:
        return pachd.commit(workspace, repo, ref)
    except errors.NotFound:
        return None


def _as_head(commit: Commit, *, behind: bool = False) -> Head | None:
    description = parse(commit.description)
    if description is None or commit.error or description.kind == "staging":
        return None
    return Head(commit, description, behind)


def heads(pachd: Pachd, workspace: str) -> dict[str, Head | None]:
    """What is current of each input. Of data and manifest that is the one that was deployed last, unless what
    it names could not be fetched; the other has none. Raises NoSuchWorkspace.
    """
    branches = {repo.name: repo.branches for repo in pachd.repos(workspace)}
    if not branches:
        require_workspace(pachd, workspace)
    found = {
        repo: head(pachd, workspace, repo) if names.MASTER in branches.get(repo, ()) else None
        for repo in names.INPUT_REPOS
    }
    manifest, data = found[names.MANIFEST], found[names.DATA]
    if manifest is None:
        return found
    if data is not None and _order(data.commit) > _order(manifest.commit):
        return {**found, names.MANIFEST: None}
    last = _find(pachd, workspace, names.FETCH, names.MASTER)
    if last is not None and not last.error and last.provenance.get(names.MANIFEST) == manifest.commit.id:
        return {**found, names.DATA: None}
    return {**found, names.DATA: None, names.MANIFEST: None} | _last_good(pachd, workspace)


def _last_good(pachd: Pachd, workspace: str) -> dict[str, Head | None]:
    """The data, or the manifest of what was fetched, that was deployed last of what is of use."""
    fetches = pachd.commits(workspace, names.FETCH, 0)
    fetched = {commit.provenance.get(names.MANIFEST) for commit in fetches if not commit.error}
    manifests = [c for c in pachd.commits(workspace, names.MANIFEST, 0) if c.id in fetched]
    candidates = [*manifests, *pachd.commits(workspace, names.DATA, 0)]
    for commit in sorted(candidates, key=_order, reverse=True):
        if (good := _as_head(commit, behind=True)) is not None:
            return {commit.repo: good}
    return {}


def _order(commit: Commit) -> datetime:
    return commit.started or datetime.min.replace(tzinfo=UTC)


def fetched(pachd: Pachd, workspace: str, commit: Commit | None, manifest: Description) -> Description:
    """What was fetched in a commit of the repo ``fetch``, as the description of a bundle, but for its files
    and bytes; without an id as long as there is nothing.
    """
    there = commit is not None and not commit.open and not commit.error
    found = pachd.folders(workspace, names.FETCH, commit.id, "/*") if commit is not None and there else {}
    return replace(
        manifest, kind="data", id=next((name for name in found if names.is_id(name)), ""), files=0, bytes=0
    )


def current_data(pachd: Pachd, workspace: str, found: Mapping[str, Head | None]) -> JobInputs | None:
    """The data among ``heads``, as jobs are given it; None without any."""
    data, manifest = found[names.DATA], found[names.MANIFEST]
    if data is not None:
        return JobInputs({names.DATA: data.commit.id}, {names.DATA: data.description})
    if manifest is None:
        return None
    fetches = pachd.commits(workspace, names.FETCH, 0)
    of_it = (c for c in fetches if c.provenance.get(names.MANIFEST) == manifest.commit.id and not c.error)
    made = next(of_it, None)
    commits = {names.MANIFEST: manifest.commit.id} | ({names.FETCH: made.id} if made is not None else {})
    about = manifest.description
    return JobInputs(commits, {names.MANIFEST: about, names.DATA: fetched(pachd, workspace, made, about)})


def counted(pachd: Pachd, workspace: str, read: JobInputs | None) -> Description | None:
    """The description of the data of a job, with the number of its files and bytes where it was fetched."""
    about = read.descriptions.get(names.DATA) if read is not None else None
    if read is None or about is None or not about.id or names.FETCH not in read.commits:
        return about
    tree = read_tree(pachd, workspace, names.FETCH, read.commits[names.FETCH], about.id)
    return replace(about, files=tree.files, bytes=tree.size_bytes)


def read_tree(pachd: Pachd, workspace: str, repo: str, commit_id: str, bundle_id: str) -> Tree:
    """The tree of a bundle that lies in a commit; raises NotFound."""
    return parse_tree(b"".join(pachd.read_file(workspace, repo, commit_id, names.tree_path(bundle_id))))


@dataclass(frozen=True, slots=True)
class JobInputs:
    """The commits that a job read (by repo name) and their descriptions where they are ours. That of the data
    is there as well where it was fetched: without an id as long as that is not known. ``fetching``: it will
    be.
    """

    commits: Mapping[str, str]
    descriptions: Mapping[str, Description]
    fetching: bool = False

    @property
    def data_repo(self) -> str:
        """The repo with the data."""
        return names.FETCH if names.FETCH in self.commits else names.DATA


@dataclass(slots=True)
class InputReader:
    """Finds the inputs of jobs from the provenance of their output commits; to be used for one request.

    ``listing``: for many jobs, list so many commits per repo at once (0: all) and ask for single ones only
    where that misses; None: ask for single ones only.
    """

    pachd: Pachd
    workspace: str
    listing: int | None = None
    _listed: dict[str, dict[str, Commit]] = field(default_factory=dict)

    def of_job(self, job_id: str) -> JobInputs:
        """The inputs of the job (any pipeline's) with this id, from the provenance of its output commits."""
        found: dict[str, str] = {}
        # From the last stage back: what it read of an earlier one may be of an older deploy.
        for stage in reversed(STAGES):
            if found and stage.name not in found:
                # What comes last has read none of it.
                continue
            commit = self._commit(stage.name, found.get(stage.name, job_id))
            if commit is not None:
                found[stage.name] = commit.id
                read = {repo: id for repo, id in commit.provenance.items() if repo in stage.inputs}
                found = read | found
        descriptions: dict[str, Description] = {}
        for repo in names.INPUT_REPOS:
            commit = self._commit(repo, found[repo]) if repo in found else None
            description = parse(commit.description) if commit is not None else None
            if description is not None:
                descriptions[repo] = description
        fetch = self._commit(names.FETCH, found[names.FETCH]) if names.FETCH in found else None
        if fetch is not None and (about := descriptions.get(names.MANIFEST)) is not None:
            descriptions[names.DATA] = fetched(self.pachd, self.workspace, fetch, about)
        return JobInputs(found, descriptions, fetching=fetch is not None and fetch.open)

    def _commit(self, repo: str, commit_id: str) -> Commit | None:
        if repo not in self._listed:
            listed = [] if self.listing is None else self.pachd.commits(self.workspace, repo, self.listing)
            self._listed[repo] = {commit.id: commit for commit in listed}
        known = self._listed[repo]
        if commit_id not in known:
            try:
                commit = self.pachd.commit(self.workspace, repo, commit_id)
            except errors.NotFound:
                return None
            if commit.id != commit_id:
                return None
            known[commit_id] = commit
        return known[commit_id]
