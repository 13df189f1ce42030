"""What is deployed in a workspace, and what a job was made of, read from commits and their descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kaos_backend import errors
from kaos_backend.domain.descriptions import Description, parse
from kaos_backend.domain.models import Commit, Project
from kaos_backend.pachd.port import Pachd
from kaos_backend.services.stages import STAGES
from kaos_formats import names
from kaos_formats.tree import Tree, parse_tree


@dataclass(frozen=True, slots=True)
class Head:
    """The current commit of one input repo and what it says about itself."""

    commit: Commit
    description: Description


def require_workspace(pachd: Pachd, workspace: str) -> Project:
    """The project of a workspace. Raises NoSuchWorkspace (also for names that no workspace can have)."""
    try:
        names.check_workspace(workspace)
        return pachd.project(workspace)
    except (errors.NotFound, errors.InvalidName) as error:
        raise errors.NoSuchWorkspace(
            f"no workspace {workspace!r}",
            hint="`kaos workspace list` shows what there is, `kaos workspace create` makes one",
            workspace=workspace,
        ) from error


def head(pachd: Pachd, workspace: str, repo: str) -> Head | None:
    """The current input of ``repo``; None if nothing (usable) was deployed yet."""
    try:
        commit = pachd.commit(workspace, repo, names.MASTER)
    except errors.NotFound:
        return None
    description = parse(commit.description)
    if description is None or commit.error or description.kind == "staging":
        return None
    return Head(commit, description)


def read_tree(pachd: Pachd, workspace: str, repo: str, commit_id: str, bundle_id: str) -> Tree:
    """The tree of a bundle that lies in a commit; raises NotFound."""
    return parse_tree(b"".join(pachd.read_file(workspace, repo, commit_id, names.tree_path(bundle_id))))


@dataclass(frozen=True, slots=True)
class JobInputs:
    """The commits that a job read (by repo name) and their descriptions where they are ours."""

    commits: Mapping[str, str]
    descriptions: Mapping[str, Description]


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
        return JobInputs(found, descriptions)

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
