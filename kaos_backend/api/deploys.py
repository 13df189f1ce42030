"""Routes of deploys."""

from __future__ import annotations

from fastapi import APIRouter

from kaos_backend import errors
from kaos_backend.api.deps import Awake, Who
from kaos_backend.api.openapi import ends_in
from kaos_backend.api.operations import needs
from kaos_backend.services import views
from kaos_backend.services.requests import Deploy

router = APIRouter(prefix="/workspaces/{workspace}/deploys", tags=["deploys"])


@router.post(
    "",
    responses=ends_in(
        errors.NoSuchWorkspace, errors.NoBundle, errors.InvalidHyper, errors.InvalidResources,
        errors.InvalidName, errors.NeverFits, errors.JobOpen,
    ),
    openapi_extra=needs("write"),
)  # fmt: skip
def deploy(workspace: str, body: Deploy, services: Awake, who: Who) -> views.DeployResult:
    """Deploys what is named; the same again starts nothing. 404 no_bundle, 400 invalid_*, 422 never_fits, 409
    job_open.
    """
    return services.deploys.deploy(workspace, body.model_copy(update={"author": who.author(body.author)}))
