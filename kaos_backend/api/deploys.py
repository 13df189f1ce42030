"""Routes of deploys."""

from __future__ import annotations

from fastapi import APIRouter

from kaos_backend.api import schemas
from kaos_backend.api.deps import Awake
from kaos_backend.services.deploys import DeployRequest

router = APIRouter(prefix="/workspaces/{workspace}/deploys", tags=["deploys"])


@router.post("")
def deploy(workspace: str, body: schemas.Deploy, services: Awake) -> schemas.DeployResult:
    """Deploys what is named; the same again starts nothing. 404 no_bundle, 400 invalid_*, 422 never_fits."""
    resources = body.resources or schemas.Resources()
    request = DeployRequest(
        source=body.source,
        data=body.data,
        hyper=body.hyper,
        parallelism=body.parallelism,
        cpu=resources.cpu,
        memory=resources.memory,
        gpu=resources.gpu,
        author=body.author,
        retry=body.retry,
    )
    return schemas.DeployResult.model_validate(services.deploys.deploy(workspace, request))
