"""Routes of workspaces."""

from __future__ import annotations

from fastapi import APIRouter

from kaos_backend import errors
from kaos_backend.api.deps import Awake, Who
from kaos_backend.api.openapi import ends_in
from kaos_backend.api.operations import needs
from kaos_backend.services import views
from kaos_backend.services.requests import WorkspaceCreate

router = APIRouter(prefix="/workspaces", tags=["workspaces"])


@router.get("", openapi_extra=needs("read", of="any"))
def list_workspaces(services: Awake, who: Who) -> views.Workspaces:
    """All workspaces that the caller may see, by name."""
    found = [one for one in services.workspaces.all() if who.sees(one.name)]
    return views.Workspaces(workspaces=found)


@router.post(
    "",
    status_code=201,
    responses=ends_in(errors.InvalidName, errors.Exists),
    openapi_extra=needs("write", of="any"),
)
def create_workspace(body: WorkspaceCreate, services: Awake, who: Who) -> views.WorkspaceAnswer:
    """A new workspace. 400 invalid_name, 409 exists."""
    who.check_in("write", body.name)
    return views.WorkspaceAnswer(**dict(services.workspaces.create(body.name, body.description)))


@router.get("/{workspace}", responses=ends_in(errors.NoSuchWorkspace), openapi_extra=needs("read"))
def get_workspace(workspace: str, services: Awake) -> views.WorkspaceDetail:
    """What is deployed, and the newest job. 404 no_such_workspace."""
    return services.workspaces.get(workspace)


@router.delete("/{workspace}", responses=ends_in(errors.NoSuchWorkspace), openapi_extra=needs("admin"))
def delete_workspace(workspace: str, services: Awake) -> views.WorkspaceDeleted:
    """Deletes a workspace with all that is in it. 404 no_such_workspace."""
    return views.WorkspaceDeleted(jobs=services.workspaces.delete(workspace))
