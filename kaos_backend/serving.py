"""The application on a socket: what takes long to import, while the engine is on its way up."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket

from kaos_backend import __version__
from kaos_backend.app import create_app
from kaos_backend.pachd.endpoint import Engine
from kaos_backend.server import Public, Server
from kaos_backend.settings import Settings
from kaos_formats.home import Running, own_socket, write_running

GRACE_S = 5

_log = logging.getLogger("kaos_backend")


class _Server(Server):
    """Tells where it listens once it does."""

    def __init__(self, chosen: Settings, engine: Engine, url: str, place: str, public: Public | None) -> None:
        app = create_app(chosen, engine)
        app.state.leave = self._leave
        app.state.serves = "" if public is None else _url(public)
        super().__init__(app, chosen.limits, public, timeout_graceful_shutdown=GRACE_S)
        self.serves = str(app.state.serves)
        self._home = chosen.home
        self._url = url
        self._place = place

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            # What was imported stays for ever: garbage need not be looked for in it.
            gc.freeze()
            running = Running(os.getpid(), __version__, url=self._url, socket=self._place, serves=self.serves)
            write_running(self._home, "backend", running)
            _log.info("listening on %s", self._url)
            if self.serves:
                _log.info("serving others at %s", self.serves)

    def _leave(self) -> None:
        self.should_exit = True


def serve(chosen: Settings, engine: Engine, listener: socket.socket, public: Public | None) -> int:
    """Answer on `listener`, and to others on `public`, until a signal ends it; the exit status."""
    listeners = [listener]
    place = own_socket(chosen.home, "backend")
    if place is not None:
        listeners.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listeners[-1].bind(str(place))
    url = "http://{}:{}".format(*listener.getsockname())
    server = _Server(chosen, engine, url, str(place or ""), public)
    # When the starting terminal closes that must not end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if public is not None:
        certificate = public.certificate
        if certificate is not None:
            signal.signal(signal.SIGHUP, lambda *_: certificate.renew(always=True))
        # uvicorn ends on these, and then raises them again for who was there before: it has ended well.
        for ends in (signal.SIGINT, signal.SIGTERM):
            signal.signal(ends, lambda *_: None)
    runner_factory = server.config.get_loop_factory()
    with asyncio.Runner(loop_factory=runner_factory) as runner:
        runner.run(server.serve(sockets=listeners))
    return 0 if server.started else 1


def _url(public: Public) -> str:
    host, port = public.listener.getsockname()[:2]
    scheme = "http" if public.certificate is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
