"""Routes of workspaces."""

from __future__ import annotations

from fastapi import APIRouter

from kaos_backend.api import schemas
from kaos_backend.api.deps import Awake

router = APIRouter(prefix="/workspaces", tags=["workspaces"])


@router.get("")
def list_workspaces(services: Awake) -> schemas.Workspaces:
    """All workspaces by name."""
    found = services.workspaces.all()
    return schemas.Workspaces(workspaces=[schemas.Workspace.model_validate(w) for w in found])


@router.post("", status_code=201)
def create_workspace(body: schemas.WorkspaceCreate, services: Awake) -> schemas.WorkspaceAnswer:
    """A new workspace. 400 invalid_name, 409 exists."""
    return schemas.WorkspaceAnswer.model_validate(services.workspaces.create(body.name, body.description))


@router.get("/{workspace}")
def get_workspace(workspace: str, services: Awake) -> schemas.WorkspaceDetail:
    """What is deployed, and the newest job. 404 no_such_workspace."""
    return schemas.WorkspaceDetail.model_validate(services.workspaces.get(workspace))


@router.delete("/{workspace}")
def delete_workspace(workspace: str, services: Awake) -> schemas.WorkspaceDeleted:
    """Deletes a workspace with all that is in it. 404 no_such_workspace."""
    return schemas.WorkspaceDeleted(jobs=services.workspaces.delete(workspace), deleted=True)
