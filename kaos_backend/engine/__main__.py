"""`python -m kaos_backend.engine --home DIR [--port N]`: one engine per home, until SIGTERM."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from kaos_backend import __version__
from kaos_backend.engine.detect import detect_machine, inputs_limit, upkeep_share
from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.facade.pps.ahead import get_ready
from kaos_backend.engine.main import start
from kaos_backend.engine.workers.choice import choose
from kaos_formats.allocator import share_heaps
from kaos_formats.home import (
    Home,
    Running,
    ensure_token,
    log_file,
    make_private,
    own_socket,
    read_running,
    try_lock,
    write_running,
)

HOST = "127.0.0.1"
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_RUNNING = 3

log = logging.getLogger("kaos_backend.engine")


def main(argv: list[str] | None = None) -> int:
    """Run an engine; the exit status. 1: cannot start. 2: refuses a setting. 3: one is running already."""
    parser = argparse.ArgumentParser(prog="kaos-engine", description="The embedded Pachyderm engine of kaos.")
    parser.add_argument("--home", type=Path, required=True, help="state of kaos (KAOS_HOME)")
    parser.add_argument("--port", type=int, default=0, help="loopback port (default: the last one, else any)")
    args = parser.parse_args(argv)
    share_heaps()
    home = Home(args.home.absolute())
    make_private(home.path)
    _log_to(log_file(home, "engine"))
    lock = try_lock(home.lock("engine"))
    if lock is None:
        print(f"kaos engine: one is running already in {home.path}", file=sys.stderr)
        return EXIT_RUNNING
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    settled = False
    try:
        machine, gpus = detect_machine(os.environ, home.path / "engine")
        inputs_bytes = inputs_limit(os.environ, machine.disk_bytes)
        share = upkeep_share(os.environ)
        runtime = choose(os.environ, home.path / "engine", home.path)
        settled = True
        port = args.port or _last_free_port(home)
        token = ensure_token(home.token_file)
        place = own_socket(home, "engine")
        handle = start(
            home.path / "engine",
            HOST,
            port,
            token,
            runtime,
            machine,
            gpus=gpus,
            inputs_bytes=inputs_bytes,
            upkeep_share=share,
            socket=place,
        )
    except EngineError as e:
        log.error("%s", e.message)
        print(f"kaos engine: {e.message}", file=sys.stderr)
        return EXIT_FAILED if settled else EXIT_USAGE
    except Exception:
        log.exception("the engine could not start")
        raise
    bound = int(handle.address.rpartition(":")[2])
    running = Running(os.getpid(), __version__, host=HOST, port=bound, socket=str(place or ""))
    write_running(home, "engine", running)
    # What was imported stays for ever: garbage need not be looked for in it.
    gc.freeze()
    log.info(
        "serving %s, machine %s, runtime %s (%s)", handle.address, machine, runtime.name, runtime.isolation
    )
    if os.getloadavg()[0] < machine.cpus:
        # While the backend still starts, or nobody asks for anything.
        get_ready()
    stop.wait()
    log.info("stopping")
    handle.stop()
    os.close(lock)
    return 0


def _log_to(path: Path) -> None:
    logging.basicConfig(
        filename=path,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(threadName)s: %(message)s",
    )


def _last_free_port(home: Home) -> int:
    """The port served last time if nobody has it now, so that clients' addresses stay good; else 0."""
    last = read_running(home, "engine")
    if last is None:
        return 0
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, last.port))
    except (OSError, OverflowError):
        return 0
    return last.port


if __name__ == "__main__":
    sys.exit(main())
