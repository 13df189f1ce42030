"""SDK messages ↔ the store's values."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

import betterproto
from pachyderm_sdk.api import pfs, pps

from kaos_backend.engine.errors import InvalidArgument, Unknown
from kaos_backend.engine.ids import is_id
from kaos_backend.engine.store.model import (
    DEFAULT_PROJECT,
    USER_REPO,
    Branch,
    BranchKey,
    Commit,
    CommitKey,
    Project,
    Repo,
    RepoKey,
)
from kaos_backend.engine.store.reads import Reads

_M = TypeVar("_M", bound=betterproto.Message)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def stamp(us: int) -> datetime:
    """Microseconds since the epoch as the SDK's timestamp."""
    return _EPOCH + timedelta(microseconds=us)


def micros(when: datetime) -> int:
    """The SDK's timestamp as microseconds since the epoch (an unset one is 0)."""
    return (when - _EPOCH) // timedelta(microseconds=1)


# Requests


def project_name(message: pfs.Project) -> str:
    return message.name or DEFAULT_PROJECT


def repo_key(message: pfs.Repo) -> RepoKey:
    """The repo a message names.

    Raises:
        InvalidArgument: it names none.
    """
    if not message.name:
        raise InvalidArgument("validate request: repo: a name of at least 1 character is needed")
    return RepoKey(project_name(message.project), message.name, message.type or USER_REPO)


def branch_key(message: pfs.Branch) -> BranchKey:
    if not message.name:
        raise Unknown("branch must be specified")
    return BranchKey(repo_key(message.repo), message.name)


def at_most(number: int) -> int | None:
    """How many things a request asks for at most; None: it does not say.

    Raises:
        InvalidArgument: it is negative.
    """
    if number < 0:
        raise InvalidArgument(f"validate request: number is {number}: must not be negative")
    return number or None


def page_of(message: pfs.RepoPage | pps.PipelinePage) -> tuple[int, int | None]:
    """(first, end) of the things that a request asks for; end None: all.

    Raises:
        InvalidArgument: there is no such page.
    """
    size, index = message.page_size, message.page_index
    if size < 0 or index < 0:
        raise InvalidArgument(f"validate request: page {index} of {size} each: must not be negative")
    # What no list is as long as, slices cannot take.
    return (min(index * size, sys.maxsize), min((index + 1) * size, sys.maxsize)) if size else (0, None)


def commit_given(message: pfs.Commit) -> bool:
    """Whether a request names a commit at all (an unset message reads as one with an empty repo)."""
    return bool(message.id or message.repo.name or message.branch.repo.name)


def commit_text(message: pfs.Commit) -> tuple[RepoKey, str]:
    """(repo, text to resolve there) of a commit in a request.

    Raises:
        Unknown: no repo, or neither id nor branch.
    """
    if not commit_given(message):
        raise Unknown("commit cannot be nil")
    source = message.repo if message.repo.name else message.branch.repo
    if not source.name:
        raise Unknown("commit must have a repo")
    id_ = message.id
    text = id_ if id_ and id_[0] not in ".^~" else message.branch.name + id_
    if not text:
        raise Unknown(f"commit of repo {repo_key(source)} has no ID or branch")
    return repo_key(source), text


def find_commit(store: Reads, message: pfs.Commit) -> Commit:
    """The commit that a request names. NotFound when there is none."""
    repo, text = commit_text(message)
    return store.resolve_commit(repo, text)


def branch_form(message: pfs.Commit) -> BranchKey | None:
    """The branch of a commit that is named by its branch only, else None."""
    repo, text = commit_text(message)
    plain = text.replace("-", "").replace("_", "").isalnum()
    return BranchKey(repo, text) if plain and not is_id(text) else None


def picked_repo(message: pfs.RepoPicker) -> RepoKey:
    name = message.name
    if not name.name:
        raise InvalidArgument("validate request: repo picker: a name is needed")
    return RepoKey(name.project.name or DEFAULT_PROJECT, name.name, name.type or USER_REPO)


def picked_branch(message: pfs.BranchPicker) -> BranchKey:
    return BranchKey(picked_repo(message.name.repo), message.name.name)


def picked_commit(store: Reads, message: pfs.CommitPicker) -> Commit:
    """The commit that a picker picks. NotFound when there is none."""
    arm, value = cast("tuple[str, Any]", betterproto.which_one_of(message, "picker"))
    if arm == "branch_head":
        return store.inspect_commit(store.inspect_branch(picked_branch(value)).head)
    if arm == "id":
        return store.resolve_commit(picked_repo(value.repo), value.id)
    if arm == "ancestor":
        start = picked_commit(store, value.start)
        return store.resolve_commit(
            start.key.repo, f"{start.key.id}^{value.offset}" if value.offset else start.key.id
        )
    if arm == "branch_root":
        branch = picked_branch(value.branch)
        return store.resolve_commit(branch.repo, f"{branch.name}.{value.offset}")
    raise InvalidArgument("validate request: commit picker: nothing is picked")


def trigger_bytes(message: pfs.Trigger) -> bytes | None:
    """A trigger as the store keeps it (JSON); None when it is not set."""
    if not message.branch:
        return None
    fields = {
        "branch": message.branch,
        "all": message.all,
        "rate_limit_spec": message.rate_limit_spec,
        "size": message.size,
        "commits": message.commits,
        "cron_spec": message.cron_spec,
    }
    return json.dumps({name: value for name, value in fields.items() if value}).encode()


# Responses


def repo_message(key: RepoKey) -> pfs.Repo:
    return pfs.Repo(name=key.name, type=key.type, project=pfs.Project(name=key.project))


def branch_message(key: BranchKey) -> pfs.Branch:
    return pfs.Branch(repo=repo_message(key.repo), name=key.name)


def commit_message(key: CommitKey) -> pfs.Commit:
    """A commit without its branch, as every response has it."""
    return pfs.Commit(repo=repo_message(key.repo), id=key.id)


def project_info(project: Project) -> pfs.ProjectInfo:
    return pfs.ProjectInfo(
        project=pfs.Project(name=project.name),
        description=project.description,
        created_at=stamp(project.created_us),
        metadata=dict(project.metadata),
    )


def repo_info(repo: Repo, branches: Iterable[Branch], size: int, details: bool) -> pfs.RepoInfo:
    info = pfs.RepoInfo(
        repo=repo_message(repo.key),
        created=stamp(repo.created_us),
        size_bytes_upper_bound=size,
        description=repo.description,
        branches=[branch_message(branch.key) for branch in branches],
        metadata=dict(repo.metadata),
    )
    if details:
        info.details = present(pfs.RepoInfoDetails(size_bytes=size))
    return info


def branch_info(
    branch: Branch, provenance: Sequence[BranchKey], subvenance: Sequence[BranchKey]
) -> pfs.BranchInfo:
    """`provenance` and `subvenance` are transitive."""
    info = pfs.BranchInfo(
        branch=branch_message(branch.key),
        head=commit_message(branch.head),
        provenance=[branch_message(key) for key in provenance],
        subvenance=[branch_message(key) for key in subvenance],
        direct_provenance=[branch_message(key) for key in branch.provenance],
        metadata=dict(branch.metadata),
        created_at=stamp(branch.created_us),
        updated_at=stamp(branch.updated_us),
        branch_propagation_specs=[
            pfs.BranchPropagationSpec(
                branch=branch_message(key), propagation_spec=pfs.PropagationSpec(never=True)
            )
            for key in branch.provenance
            if key in branch.never
        ],
    )
    if branch.trigger is not None:
        info.trigger = pfs.Trigger(**json.loads(branch.trigger))
    return info


def commit_info(commit: Commit) -> pfs.CommitInfo:
    info = pfs.CommitInfo(
        commit=commit_message(commit.key),
        origin=pfs.CommitOrigin(kind=getattr(pfs.OriginKind, commit.origin)),
        description=commit.description,
        child_commits=[commit_message(key) for key in commit.children],
        started=stamp(commit.started_us),
        direct_provenance=[commit_message(key) for key in commit.provenance],
        direct_subvenance=[commit_message(key) for key in commit.subvenance],
        error=commit.error,
        metadata=dict(commit.metadata),
        created_at=stamp(commit.started_us),
        updated_at=stamp(commit.updated_us),
    )
    if commit.parent is not None:
        info.parent_commit = commit_message(commit.parent)
    if commit.finishing_us is not None:
        info.finishing = stamp(commit.finishing_us)
    if commit.finished_us is not None:
        info.finished = stamp(commit.finished_us)
        info.size_bytes_upper_bound = commit.size_bytes or 0
        info.details = present(pfs.CommitInfoDetails(size_bytes=commit.size_bytes or 0))
    return info


def present(message: _M) -> _M:
    """A sub-message that is sent even when all its fields are zero."""
    message._serialized_on_wire = True
    return message
