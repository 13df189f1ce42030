"""The composition root: settings → engine → adapter → services → routes. No module-level app or client."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from anyio import to_thread
from fastapi import APIRouter, FastAPI

from kaos_backend import __version__
from kaos_backend.api import bundles, errors, foreground, jobs, removals, system, tokens, workspaces
from kaos_backend.api import deploys as deploy_routes
from kaos_backend.api.callers import Callers
from kaos_backend.api.deps import Services
from kaos_backend.api.front import FrontDoor
from kaos_backend.api.openapi import describe
from kaos_backend.errors import KaosError
from kaos_backend.metric_cache import MetricCache
from kaos_backend.pachd.endpoint import Engine
from kaos_backend.pachd.sdk import SdkPachd
from kaos_backend.services.archives import Archives
from kaos_backend.services.bundles import Bundles
from kaos_backend.services.checks import Checks
from kaos_backend.services.deploys import Deploys
from kaos_backend.services.foreground import Foregrounds
from kaos_backend.services.jobs import Jobs
from kaos_backend.services.locks import KeyedLocks
from kaos_backend.services.logs import Logs
from kaos_backend.services.queue import Queue
from kaos_backend.services.readings import Readings
from kaos_backend.services.reasons import Reasons
from kaos_backend.services.recovery import Recovery
from kaos_backend.services.removals import Removals
from kaos_backend.services.retries import Retries
from kaos_backend.services.space import Space
from kaos_backend.services.takeover import Takeover
from kaos_backend.services.trials import Trials
from kaos_backend.services.upstream import Upstream
from kaos_backend.services.workspaces import Workspaces
from kaos_backend.settings import Settings
from kaos_backend.supervisor import make_engine
from kaos_backend.tokens import Tokens
from kaos_formats.home import ensure_token

OWNER_LENGTH = 16
SWEEP_EVERY_S = 1800.0

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
        to_thread.current_default_thread_limiter().total_tokens = settings.limits.threads
        # In a thread, so that the backend answers while the engine comes up; requests wait for it themselves.
        threading.Thread(target=_wake, args=(services,), name="wake", daemon=True).start()
        stopping = threading.Event()
        threading.Thread(target=_sweep, args=(services, stopping), name="sweep", daemon=True).start()
        yield
        stopping.set()

    app = FastAPI(
        title="kaos", version=__version__, docs_url=None, redoc_url=None, openapi_url=None,
        lifespan=lifespan, redirect_slashes=False,
    )  # fmt: skip
    app.state.services = services
    app.state.serves = ""
    root = APIRouter(prefix="/v1")
    for module in (system, workspaces, bundles, deploy_routes, jobs, removals, foreground, tokens):
        root.include_router(module.router)
    app.include_router(root)
    errors.install(app)
    describe(app)
    callers = Callers(services.token, services.tokens, now)
    app.add_middleware(FrontDoor, settings=settings, callers=callers, document=app.openapi)
    return app


def make_services(settings: Settings, engine: Engine, now: Callable[[], datetime]) -> Services:
    """All use cases on one engine."""
    pachd = SdkPachd(engine)
    locks = KeyedLocks()
    owner = ensure_token(settings.home.owner_file)[:OWNER_LENGTH]
    stored = Bundles(pachd, owner, locks, now)
    recovery = Recovery(pachd, stored.staging, locks, now)
    listed = Jobs(pachd, now)
    reasons = Reasons(pachd)
    readings = Readings(pachd, MetricCache(settings.home.cache / "metrics.sqlite"))
    trials = Trials(pachd, listed, readings, reasons)
    deploys = Deploys(pachd, stored, recovery, locks, now, settings.fetching)
    return Services(
        settings=settings,
        token=ensure_token(settings.home.token_file),
        tokens=Tokens(settings.home.tokens_file, now),
        engine=engine,
        pachd=pachd,
        recovery=recovery,
        workspaces=Workspaces(pachd, listed, locks),
        bundles=stored,
        takeover=Takeover(pachd, stored),
        deploys=deploys,
        jobs=listed,
        queue=Queue(pachd, listed),
        trials=trials,
        retries=Retries(pachd, listed, deploys),
        removals=Removals(pachd, listed, locks),
        logs=Logs(pachd, listed, trials, reasons),
        archives=Archives(pachd, listed, trials),
        foregrounds=Foregrounds(pachd, trials, stored),
        checks=Checks(pachd),
        space=Space(pachd),
        upstream=Upstream(pachd, listed, trials),
    )


def _wake(services: Services) -> None:
    try:
        services.awake()
    except KaosError as error:
        _log.error("the engine did not come up: %s", error.message)
    except Exception:
        _log.exception("the engine did not come up")


def _sweep(services: Services, stopping: threading.Event) -> None:
    """Looks now and then through what was kept for a while."""
    while not stopping.wait(SWEEP_EVERY_S):
        try:
            services.awake()
            services.recovery.sweep()
        except KaosError as error:
            _log.warning("nothing that was kept is removed: %s", error.message)
        except Exception:
            _log.exception("nothing that was kept is removed")
