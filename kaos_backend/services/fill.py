"""Giving an open input commit its content: by reference from a staging commit, or from the grid in its
description.
"""

from __future__ import annotations

from kaos_backend.domain import hyperparams
from kaos_backend.domain.descriptions import Description, parse
from kaos_backend.domain.models import AddFile, CopyFile, DeleteFile, FileOp
from kaos_backend.pachd.port import Pachd
from kaos_backend.services.inputs import Head
from kaos_formats import names

# More trials are sent as a stream, and of those only what the grid before has not.
_AT_ONCE = 1000


def changes(repo: str, description: Description) -> list[FileOp] | None:
    """What makes a commit of anything one with the content that a description names, where that is small
    enough to come with its commit.
    """
    if description.kind != "hyper":
        return _copies(repo, description)
    return None if description.trials > _AT_ONCE else _points(description, None)


def fill(pachd: Pachd, workspace: str, repo: str, commit_id: str, description: Description) -> None:
    """Gives an open input commit the content that its description names, and finishes it. Repeatable.

    Raises NotFound if the staging commit is gone.
    """
    if description.kind == "hyper":
        content = _points(description, _grid_before(pachd, workspace, commit_id))
    else:
        content = _copies(repo, description)
    pachd.modify(workspace, repo, commit_id, content)
    pachd.finish_commit(workspace, repo, commit_id)


def _copies(repo: str, description: Description) -> list[FileOp]:
    paths = names.bundle_dir(description.id), names.tree_path(description.id)
    copies = [CopyFile(path, repo, description.staging, path) for path in paths]
    beside = [AddFile(path, text) for path, text in _beside(description).items()]
    return [DeleteFile("/"), *copies, *beside]


def _beside(description: Description) -> dict[str, bytes]:
    """What tells a manifest from the same one that was deployed before, so that it is fetched anew."""
    return {f"/{names.REFRESH_FILE}": description.refresh.encode()} if description.refresh else {}


def _points(description: Description, before: Description | None) -> list[FileOp]:
    """The changes that make a commit of the grid ``before`` (None: of anything) one of that described."""
    files = _files(description)
    old = _files(before) if before is not None else {}
    gone: list[FileOp] = [DeleteFile(path) for path, text in old.items() if files.get(path) != text]
    new = [AddFile(path, text) for path, text in files.items() if old.get(path) != text]
    return [*gone, *new] if old else [DeleteFile("/"), *new]


def _files(description: Description) -> dict[str, bytes]:
    trials = hyperparams.expand(description.grid or {}).trials
    return {names.params_path(trial.params_id): trial.text.encode() for trial in trials}


def _grid_before(pachd: Pachd, workspace: str, commit_id: str) -> Description | None:
    """What the commit began with, where that is a whole grid of ours."""
    parent = pachd.commit(workspace, names.HYPER, commit_id).parent
    if not parent:
        return None
    commit = pachd.commit(workspace, names.HYPER, parent)
    about = parse(commit.description)
    whole = about is not None and about.kind == "hyper" and not commit.open and not commit.error
    return about if whole and not pachd.damaged(workspace, names.HYPER, parent, "/") else None


def heal(pachd: Pachd, workspace: str, head: Head, owner: str) -> None:
    """Writes the trials of the current grid once more, if any of them is known to be damaged."""
    if not pachd.damaged(workspace, names.HYPER, head.commit.id, "/"):
        return
    grid = head.description
    branch = names.staging_branch(grid.id, owner)
    about = Description(kind="staging", id=grid.id, owner=owner)
    commit_id = pachd.start_commit(workspace, names.HYPER, branch, about.to_json())
    try:
        fill(pachd, workspace, names.HYPER, commit_id, grid)
    finally:
        # Only the content counted, which is shared with the current commit. The branch goes first.
        pachd.drop_branch(workspace, names.HYPER, branch)
        pachd.drop_commit_set(commit_id)
