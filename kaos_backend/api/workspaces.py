"""Routes of workspaces."""

from __future__ import annotations

from fastapi import APIRouter

from kaos_backend import errors
from kaos_backend.api.deps import Awake
from kaos_backend.api.openapi import ends_in
from kaos_backend.services import views
from kaos_backend.services.requests import WorkspaceCreate

router = APIRouter(prefix="/workspaces", tags=["workspaces"])


@router.get("")
def list_workspaces(services: Awake) -> views.Workspaces:
    """All workspaces by name."""
    return views.Workspaces(workspaces=services.workspaces.all())


@router.post("", status_code=201, responses=ends_in(errors.InvalidName, errors.Exists))
def create_workspace(body: WorkspaceCreate, services: Awake) -> views.WorkspaceAnswer:
    """A new workspace. 400 invalid_name, 409 exists."""
    return views.WorkspaceAnswer(**dict(services.workspaces.create(body.name, body.description)))


@router.get("/{workspace}", responses=ends_in(errors.NoSuchWorkspace))
def get_workspace(workspace: str, services: Awake) -> views.WorkspaceDetail:
    """What is deployed, and the newest job. 404 no_such_workspace."""
    return services.workspaces.get(workspace)


@router.delete("/{workspace}", responses=ends_in(errors.NoSuchWorkspace))
def delete_workspace(workspace: str, services: Awake) -> views.WorkspaceDeleted:
    """Deletes a workspace with all that is in it. 404 no_such_workspace."""
    return views.WorkspaceDeleted(jobs=services.workspaces.delete(workspace))
