"""`python -m kaos_backend.engine --home DIR [--port N]`: one engine per home, until SIGTERM."""

from __future__ import annotations

import argparse
import errno
import fcntl
import json
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from pathlib import Path

from kaos_backend import __version__
from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.main import detect_machine, start
from kaos_backend.engine.workers.choice import choose

HOST = "127.0.0.1"
EXIT_USAGE = 2
EXIT_RUNNING = 3

log = logging.getLogger("kaos_backend.engine")


def main(argv: list[str] | None = None) -> int:
    """Run an engine; the exit status. 2: cannot start as asked. 3: one is running already."""
    parser = argparse.ArgumentParser(prog="kaos-engine", description="The embedded Pachyderm engine of kaos.")
    parser.add_argument("--home", type=Path, required=True, help="state of kaos (KAOS_HOME)")
    parser.add_argument("--port", type=int, default=0, help="loopback port (default: the last one, else any)")
    args = parser.parse_args(argv)
    home: Path = args.home.absolute()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    _log_to(home / "logs" / "engine.log")
    lock = _lock(home / "engine.lock")
    if lock is None:
        print(f"kaos engine: one is running already in {home}", file=sys.stderr)
        return EXIT_RUNNING
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    info = home / "engine.json"
    try:
        machine = detect_machine(os.environ)
        runtime = choose(os.environ, home / "engine", home)
        port = args.port or _last_free_port(info)
        handle = start(home / "engine", HOST, port, _token(home / "token"), runtime, machine)
    except EngineError as e:
        log.error("%s", e.message)
        print(f"kaos engine: {e.message}", file=sys.stderr)
        return EXIT_USAGE
    except Exception:
        log.exception("the engine could not start")
        raise
    bound = int(handle.address.rpartition(":")[2])
    _write_json(info, {"host": HOST, "port": bound, "pid": os.getpid(), "version": __version__})
    log.info(
        "serving %s, machine %s, runtime %s (%s)", handle.address, machine, runtime.name, runtime.isolation
    )
    stop.wait()
    log.info("stopping")
    handle.stop()
    os.close(lock)
    return 0


def _log_to(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    logging.basicConfig(
        filename=path,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(threadName)s: %(message)s",
    )


def _lock(path: Path) -> int | None:
    """The open, locked file, or None when another process has it. The lock dies with this process."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        os.close(fd)
        if e.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise
    return fd


def _token(path: Path) -> str:
    """The home's secret; made by whoever needs it first."""
    try:
        return path.read_text().strip() or _fresh_token(path)
    except FileNotFoundError:
        return _fresh_token(path)


def _fresh_token(path: Path) -> str:
    # Complete before it has its name: nobody reads half a secret, and the first one wins.
    temporary = path.with_name(f".token.{os.getpid()}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, f"{secrets.token_hex(32)}\n".encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    try:
        os.link(temporary, path)
    except FileExistsError:
        if not path.read_text().strip():
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path.read_text().strip()


def _last_free_port(info: Path) -> int:
    """The port served last time if nobody has it now, so that clients' addresses stay good; else 0."""
    try:
        port = int(json.loads(info.read_text())["port"])
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    return port


def _write_json(path: Path, value: object) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
