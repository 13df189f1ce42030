"""The small services: version, admin, health, enterprise."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from betterproto.lib.google.protobuf import Empty
from pachyderm_sdk.api import admin, enterprise, version

from kaos_backend.engine.facade.convert import project_name
from kaos_backend.engine.facade.rpc import Handlers, unary
from kaos_backend.engine.store.store import Store

_MAJOR, _MINOR, _MICRO = 2, 12, 2
# grpc.health.v1.HealthCheckResponse{status 1}: SERVING is 1.
_SERVING = b"\x08\x01"


class VersionService:
    """The version of the protocol that the engine speaks."""

    name = "versionpb_v2.API"

    def handlers(self) -> Handlers:
        return {"GetVersion": unary(lambda _request, _: served_version(), Empty)}


def served_version() -> version.Version:
    return version.Version(
        major=_MAJOR, minor=_MINOR, micro=_MICRO, additional="-kaos", platform="kaos embedded engine"
    )


class AdminService:
    """`metadata`: what the engine says about itself (runtime, isolation, machine)."""

    name = "admin_v2.API"

    def __init__(self, store: Store, metadata: Mapping[str, str]) -> None:
        self._store = store
        self._metadata = dict(metadata)
        self._cluster_id = store.cluster_id()

    def handlers(self) -> Handlers:
        return {"InspectCluster": unary(self._inspect, admin.InspectClusterRequest)}

    def _inspect(self, request: admin.InspectClusterRequest, _: grpc.ServicerContext) -> admin.ClusterInfo:
        if request.current_project.name:
            self._store.inspect_project(project_name(request.current_project))
        client = request.client_version
        warnings = []
        if (client.major, client.minor) not in ((0, 0), (_MAJOR, _MINOR)):
            warnings.append(
                f"the client speaks version {client.major}.{client.minor}, this server {_MAJOR}.{_MINOR}: "
                "install a pachyderm-sdk of the server's version"
            )
        return admin.ClusterInfo(
            id=self._cluster_id,
            deployment_id="kaos",
            warnings_ok=True,
            warnings=warnings,
            metadata={**self._store.cluster_metadata(), **self._metadata},
        )


class EnterpriseService:
    name = "enterprise_v2.API"

    def handlers(self) -> Handlers:
        return {
            "GetState": unary(lambda _request, _: enterprise.GetStateResponse(), enterprise.GetStateRequest)
        }


class HealthService:
    """`Check` answers SERVING for as long as the engine answers at all."""

    name = "grpc.health.v1.Health"

    def handlers(self) -> Handlers:
        return {"Check": unary(lambda _request, _: _SERVING, Empty)}
