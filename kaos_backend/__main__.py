"""The backend process: ``python -m kaos_backend [serve]`` (settings from the environment, see ``settings``).

With ``serve`` others can reach it, too, and it logs to stderr.

Exit codes: 0 ended on a signal, 2 unusable settings or port, 3 another backend runs on this KAOS_HOME (1 with
``serve``, whose codes are those of the command line), 130 interrupted before it served, 1 anything else. What
went wrong is on stderr and in logs/backend.log.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kaos_backend import settings
from kaos_backend.pachd.endpoint import Engine
from kaos_backend.settings import Served, Settings, SettingsError
from kaos_backend.supervisor import make_engine
from kaos_formats.allocator import share_heaps
from kaos_formats.home import log_file, make_private, read_running, try_lock

if TYPE_CHECKING:
    from kaos_backend.server import Public

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_RUNNING = 3
EXIT_INTERRUPTED = 130
BACKLOG = 512

_log = logging.getLogger("kaos_backend")


def main() -> int:
    """Runs the backend until a signal ends it."""
    share_heaps()
    try:
        chosen = settings.from_environment(os.environ, serve=sys.argv[1:] == ["serve"])
        make_private(chosen.home.path)
        _log_to(None if chosen.shared else log_file(chosen.home, "backend"))
        public = None if chosen.served is None else _public(chosen, chosen.served)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (SettingsError, OSError) as error:
        return _fail(str(error), EXIT_USAGE)
    lock = try_lock(chosen.home.lock("backend"))
    if lock is None:
        running = read_running(chosen.home, "backend")
        where = running.url if running is not None else "an unknown address"
        code = EXIT_FAILED if chosen.shared else EXIT_RUNNING
        return _fail(f"a backend for {chosen.home.path} runs already, at {where}", code)
    try:
        listener = bind(chosen)
    except OSError as error:
        return _fail(_bind_problem(chosen, error), EXIT_USAGE)
    try:
        engine = make_engine(chosen)
        # It takes as long to come up as the imports below do.
        threading.Thread(target=_bring_up, args=(engine,), name="engine", daemon=True).start()
        from kaos_backend.serving import serve

        return serve(chosen, engine, listener, public)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        _log.exception("the backend ended")
        return _fail(f"the backend ended: {error}; see {chosen.home.log('backend')}", 1)
    finally:
        listener.close()
        os.close(lock)


def bind(chosen: Settings) -> socket.socket:
    """A listening loopback socket: on the port of the settings, else on the last one if it is free, else on
    any.

    Raises OSError if a port was asked for and is taken.
    """
    if chosen.port is not None:
        return _listen(chosen.port)
    last = read_running(chosen.home, "backend")
    port = "" if last is None else last.url.rpartition(":")[2]
    if port.isdigit() and int(port) < 65536:
        try:
            return _listen(int(port))
        except OSError:
            pass
    return _listen(0)


def _bring_up(engine: Engine) -> None:
    with suppress(Exception):  # whoever needs it tries again, and tells of it
        engine.ensure()


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


def _bind_problem(chosen: Settings, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {chosen.port} (KAOS_PORT) is in use by another program; choose another or unset KAOS_PORT"
        )
    return f"cannot listen on 127.0.0.1:{chosen.port or 0}: {error.strerror}"


def _public(chosen: Settings, served: Served) -> Public:
    """Where others are to reach it, listening. Raises SettingsError, OSError."""
    import resource

    from kaos_backend.server import Public
    from kaos_backend.tls import Certificate
    from kaos_backend.tokens import Tokens

    if problem := Tokens(chosen.home.tokens_file, lambda: datetime.now(UTC)).problem:
        raise SettingsError(problem)
    certificate = None if served.cert is None or served.key is None else Certificate(served.cert, served.key)
    # Others open connections as they like; each is a descriptor until it is refused.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        family, *_, address = socket.getaddrinfo(served.host, served.port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        why = (
            "it is in use by another program" if error.errno == errno.EADDRINUSE else error.strerror or error
        )
        raise SettingsError(f"cannot listen on {served.host}, port {served.port} (--port): {why}") from None
    return Public(listener, certificate)


def _log_to(path: Path | None) -> None:
    handler = logging.StreamHandler() if path is None else logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # An upload that is refused aborts its stream by raising in grpc's thread, which grpc then logs at length.
    logging.getLogger("grpc").setLevel(logging.CRITICAL)


def _fail(message: str, code: int) -> int:
    print(f"kaos backend: {message}", file=sys.stderr)
    if any(isinstance(handler, logging.FileHandler) for handler in logging.getLogger().handlers):
        _log.error("%s", message)
    return code


if __name__ == "__main__":
    sys.exit(main())
