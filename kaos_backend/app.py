"""The composition root: settings → engine → adapter → services → routes. No module-level app or client."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from fastapi import APIRouter, Depends, FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kaos_backend import __version__
from kaos_backend.api import bundles, deploys, errors, jobs, system, workspaces
from kaos_backend.api.deps import Services, authorize
from kaos_backend.errors import KaosError
from kaos_backend.pachd.connection import Engine
from kaos_backend.pachd.sdk import SdkPachd
from kaos_backend.services.archives import Archives
from kaos_backend.services.bundles import Bundles
from kaos_backend.services.deploys import Deploys
from kaos_backend.services.jobs import Jobs
from kaos_backend.services.locks import KeyedLocks
from kaos_backend.services.logs import Logs
from kaos_backend.services.recovery import Recovery
from kaos_backend.services.trials import Trials
from kaos_backend.services.workspaces import Workspaces
from kaos_backend.settings import Settings
from kaos_backend.supervisor import EmbeddedEngine, RemoteEngine
from kaos_formats.home import ensure_token

_log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


def create_app(
    settings: Settings, engine: Engine | None = None, now: Callable[[], datetime] = _now
) -> FastAPI:
    """The application. ``engine`` defaults to what the settings ask for; it is started when the app
    starts.
    """
    services = make_services(settings, engine or make_engine(settings), now)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # In a thread, so that the backend answers while the engine comes up; requests wait for it themselves.
        threading.Thread(target=_wake, args=(services,), name="wake", daemon=True).start()
        yield

    app = FastAPI(
        title="kaos", version=__version__, docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan
    )
    app.state.services = services
    root = APIRouter(prefix="/v1", dependencies=[Depends(authorize)])
    for module in (system, workspaces, bundles, deploys, jobs):
        root.include_router(module.router)
    app.include_router(root)
    errors.install(app)
    app.add_middleware(VersionHeader)
    return app


def make_engine(settings: Settings) -> Engine:
    """The embedded engine, or the remote pachd that the settings name."""
    if settings.engine_address is not None:
        return RemoteEngine(settings.engine_address, settings.engine_token)
    return EmbeddedEngine(settings)


def make_services(settings: Settings, engine: Engine, now: Callable[[], datetime]) -> Services:
    """All use cases on one engine."""
    pachd = SdkPachd(engine)
    locks = KeyedLocks()
    stored = Bundles(pachd, locks, now)
    recovery = Recovery(pachd, stored, locks, now)
    listed = Jobs(pachd, now)
    trials = Trials(pachd, listed)
    return Services(
        settings=settings,
        token=ensure_token(settings.home.token_file),
        engine=engine,
        pachd=pachd,
        recovery=recovery,
        workspaces=Workspaces(pachd, listed, locks),
        bundles=stored,
        deploys=Deploys(pachd, stored, recovery, locks, now),
        jobs=listed,
        trials=trials,
        logs=Logs(pachd, listed, trials),
        archives=Archives(pachd, listed, trials),
    )


class VersionHeader:
    """Puts X-Kaos-Version on every response, errors included (plain ASGI: it must not buffer streams)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[errors.VERSION_HEADER] = __version__
            await send(message)

        await self._app(scope, receive, send_with_version)


def _wake(services: Services) -> None:
    try:
        services.awake()
    except KaosError as error:
        _log.error("the engine did not come up: %s", error.message)
    except Exception:
        _log.exception("the engine did not come up")
