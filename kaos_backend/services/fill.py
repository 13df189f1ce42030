"""Giving an open input commit its content: by reference from a staging commit, or from the grid in its
description.
"""

from __future__ import annotations

from kaos_backend.domain import hyperparams
from kaos_backend.domain.descriptions import Description
from kaos_backend.domain.models import AddFile, CopyFile, DeleteFile, FileOp
from kaos_backend.pachd.port import Pachd
from kaos_backend.services.inputs import Head
from kaos_formats import names


def fill(pachd: Pachd, workspace: str, repo: str, commit_id: str, description: Description) -> None:
    """Gives an open input commit the content that its description names, and finishes it. Repeatable.

    Raises NotFound if the staging commit is gone.
    """
    pachd.modify(workspace, repo, commit_id, content(repo, description))
    pachd.finish_commit(workspace, repo, commit_id)


def content(repo: str, description: Description) -> list[FileOp]:
    """The changes that make an input commit hold exactly what its description names."""
    if description.kind == "hyper":
        grid = hyperparams.expand(description.grid or {})
        files = [AddFile(names.params_path(t.params_id), t.text.encode()) for t in grid.trials]
        return [DeleteFile("/"), *files]
    paths = (names.bundle_dir(description.id), names.tree_path(description.id))
    return [DeleteFile("/"), *(CopyFile(path, repo, description.staging, path) for path in paths)]


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
