"""What routes depend on: the services."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from kaos_backend.domain.rights import Caller
from kaos_backend.pachd.endpoint import Engine
from kaos_backend.pachd.port import Pachd
from kaos_backend.services.archives import Archives
from kaos_backend.services.bundles import Bundles
from kaos_backend.services.checks import Checks
from kaos_backend.services.deploys import Deploys
from kaos_backend.services.foreground import Foregrounds
from kaos_backend.services.jobs import Jobs
from kaos_backend.services.logs import Logs
from kaos_backend.services.queue import Queue
from kaos_backend.services.recovery import Recovery
from kaos_backend.services.removals import Removals
from kaos_backend.services.retries import Retries
from kaos_backend.services.space import Space
from kaos_backend.services.takeover import Takeover
from kaos_backend.services.trials import Trials
from kaos_backend.services.upstream import Upstream
from kaos_backend.services.workspaces import Workspaces
from kaos_backend.settings import Settings
from kaos_backend.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Services:
    """The use cases, wired to one Pachyderm."""

    settings: Settings
    token: str
    tokens: Tokens
    engine: Engine
    pachd: Pachd
    recovery: Recovery
    workspaces: Workspaces
    bundles: Bundles
    takeover: Takeover
    deploys: Deploys
    jobs: Jobs
    queue: Queue
    trials: Trials
    retries: Retries
    removals: Removals
    logs: Logs
    archives: Archives
    foregrounds: Foregrounds
    checks: Checks
    space: Space
    upstream: Upstream

    def awake(self) -> None:
        """Makes sure that the engine lives and that what a crash interrupted has been finished."""
        endpoint = self.engine.ensure()
        self.recovery.ensure(endpoint.generation)


def services_of(request: Request) -> Services:
    """The services without a look at the engine."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


def same_user(request: Request) -> bool:
    """Whether the kernel says that the client is a process of our user on this machine: see ``server``."""
    return bool(getattr(request.state, "same_user", False))


def awake_services(request: Request) -> Services:
    """The services on a living, recovered engine. Cheap while it lives; runs in a worker thread."""
    services = services_of(request)
    services.awake()
    return services


async def caller_of(request: Request) -> Caller:
    """Whom the front door took the client for."""
    caller = request.state.caller
    assert isinstance(caller, Caller)
    return caller


Who = Annotated[Caller, Depends(caller_of)]
Awake = Annotated[Services, Depends(awake_services)]
Plain = Annotated[Services, Depends(services_of)]
