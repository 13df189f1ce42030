"""Routes of what was deployed: versions of code and data, and the removal of those and of jobs."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter

from kaos_backend import errors
from kaos_backend.api.deps import Awake
from kaos_backend.api.openapi import ends_in
from kaos_backend.api.operations import needs
from kaos_backend.services import requests, views

router = APIRouter(prefix="/workspaces/{workspace}", tags=["removals"])


@router.get("/versions/{kind}", responses=ends_in(errors.NoSuchWorkspace), openapi_extra=needs("read"))
def list_versions(workspace: str, kind: Literal["source", "data"], services: Awake) -> views.Versions:
    """What was ever deployed of a kind and is still there, newest first. 404 no_such_workspace."""
    return views.Versions(versions=services.removals.versions(workspace, kind))


@router.post(
    "/removals",
    responses=ends_in(
        errors.NoSuchWorkspace,
        errors.NoSuchJob,
        errors.NoBundle,
        errors.Ambiguous,
        errors.JobOpen,
        errors.InUse,
    ),
    openapi_extra=needs("write"),
)
def remove(workspace: str, body: requests.Remove, services: Awake) -> views.Removed:
    """Removes jobs and versions, all of them or none. 404 no_such_job, no_bundle; 409 ambiguous, job_open,
    in_use (it is current, or jobs that stay need it).
    """
    return services.removals.remove(workspace, body)
