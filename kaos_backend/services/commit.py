"""The moment of a deploy: new inputs become current and the pipelines that read them are put, together.

The embedded engine does all of it in one transaction. Elsewhere, and for what does not fit into one call, the
transaction opens the commits, which are filled after it; what a crash leaves then ``services.recovery``
finishes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from kaos_backend import errors
from kaos_backend.domain.deploys import repos_read
from kaos_backend.domain.descriptions import Description
from kaos_backend.domain.models import PutPipeline, Staged, StartCommit
from kaos_backend.pachd.port import Pachd
from kaos_backend.services.fill import changes, fill
from kaos_backend.services.locks import KeyedLocks
from kaos_backend.services.staging import Staging, upload_key
from kaos_formats import names


@dataclass(frozen=True, slots=True)
class Part:
    """A new input: the repo that it belongs to, and its description, which also says where its content is;
    ``staged``: nothing else needs that commit.
    """

    repo: str
    description: Description
    staged: bool = False


def commit_inputs(
    pachd: Pachd,
    staging: Staging,
    locks: KeyedLocks,
    workspace: str,
    parts: Sequence[Part],
    pipelines: Sequence[PutPipeline],
) -> str:
    """Makes ``parts`` the workspace's current inputs and puts the pipelines; the id of the jobs. What was
    staged is dropped, but for what is sent once more at this moment: that is left for recovery.
    """
    with ExitStack() as held:
        staged: list[Staged] = []
        for part in parts:
            about = part.description
            if part.staged:
                with suppress(errors.Busy):
                    held.enter_context(locks.hold(*upload_key(workspace, part.repo, about.id), patience_s=0))
                    staged.append(
                        Staged(part.repo, names.staging_branch(about.id, staging.owner), about.staging)
                    )
        try:
            return _at_once(pachd, workspace, parts, pipelines, staged)
        except errors.NeedsEmbeddedEngine:
            return _in_steps(pachd, workspace, parts, pipelines, staged)


def _at_once(
    pachd: Pachd,
    workspace: str,
    parts: Sequence[Part],
    pipelines: Sequence[PutPipeline],
    staged: Sequence[Staged],
) -> str:
    commits = [_start(part) for part in parts]
    job_id = pachd.transact_at_once(workspace, _repos(parts, pipelines), commits, pipelines, staged)
    for part, made in zip(parts, commits, strict=True):
        if made.changes is None:
            fill(pachd, workspace, part.repo, job_id, part.description)
    return job_id


def _repos(parts: Sequence[Part], pipelines: Sequence[PutPipeline]) -> list[str]:
    """The input repos that there are to be."""
    read = {repo for put in pipelines for repo in repos_read(put.spec)}.intersection(names.INPUT_REPOS)
    return list(dict.fromkeys((*names.ALWAYS_THERE, *(part.repo for part in parts), *sorted(read))))


def _start(part: Part) -> StartCommit:
    about = part.description
    return StartCommit(part.repo, names.MASTER, about.to_json(), changes(part.repo, about))


def _in_steps(
    pachd: Pachd,
    workspace: str,
    parts: Sequence[Part],
    pipelines: Sequence[PutPipeline],
    staged: Sequence[Staged],
) -> str:
    pachd.ensure_repos(workspace, _repos(parts, pipelines))
    job_id = pachd.transact(workspace, [_start(part) for part in parts], pipelines)
    for part in parts:
        fill(pachd, workspace, part.repo, job_id, part.description)
    for one in staged:
        # The branch goes first, see ``Staging.discard``.
        pachd.drop_branch(workspace, one.repo, one.branch)
        pachd.drop_commit_set(one.commit)
    return job_id
