"""The local default: find the backend that serves KAOS_HOME, start it if there is none, stop it.

Who starts holds ``up.lock``, so two command lines that start at the same moment end in one backend. Whether a
process lives is told by the lock it holds (``backend.lock``, ``engine.lock``), never by a pid alone.

Who stops them leaves the file ``stopped``: a command that loses its backend can tell this from a crash,
and mends only that.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kaos_cli import __version__
from kaos_cli.config import Home
from kaos_cli.errors import ConnectionLost, KaosError
from kaos_cli.transport import Endpoint, Transport
from kaos_formats.home import Program, Running, is_locked, locked, log_file, read_running

START_TIMEOUT_S = 60.0
HEALTH_TIMEOUT_S = 15.0
ASK_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 30.0
POLL_S = 0.01
PROCESSES: dict[Program, str] = {"backend": "kaos_backend", "engine": "kaos_backend.engine"}


def connect(home: Home, env: Mapping[str, str], say: Callable[[str], None]) -> Transport:
    """A transport to the local backend, started if it must be."""
    return find(home) or start(home, env, say)


def reconnect(home: Home, env: Mapping[str, str], say: Callable[[str], None]) -> Transport:
    """As ``connect``, for a command that has lost its backend: one that crashed is started again.

    Raises KaosError (stopped) when it was stopped.
    """
    return find(home) or start(home, env, say, unless_stopped=True)


def find(home: Home, timeout_s: float | None = None) -> Transport | None:
    """A transport to the live local backend, None if there is none.

    Raises KaosError for one of another version and for one that holds its port but does not answer.
    """
    running = read_running(home, "backend")
    if running is None:
        return None
    _check_version(home, running)
    timeout_s = timeout_s or HEALTH_TIMEOUT_S
    endpoint = Endpoint(running.url, home.token(), local=True, socket=running.socket)
    transport = Transport(endpoint, connect_timeout_s=timeout_s)
    try:
        health = transport.json("GET", "/health", timeout_s=timeout_s)
    except ConnectionLost as error:
        transport.close()
        if isinstance(error.__cause__, TimeoutError) and is_locked(home.lock("backend")):
            raise KaosError(
                "backend_unavailable",
                f"the backend (pid {running.pid}) does not answer at {running.url}",
                hint=f"kaos down && kaos up; its log is {home.log('backend')}",
            ) from error
        return None
    except KaosError as error:
        transport.close()
        # Dead, and its port now belongs to somebody else's server (or to another KAOS_HOME's backend).
        if not is_locked(home.lock("backend")):
            return None
        if error.code == "version_mismatch":
            error.hint = error.hint or "kaos down && kaos up"
        raise
    if health.get("pid") != running.pid and not is_locked(home.lock("backend")):
        transport.close()
        return None
    return transport


def start(
    home: Home, env: Mapping[str, str], say: Callable[[str], None], unless_stopped: bool = False
) -> Transport:
    """Start the backend and wait until it answers; raises KaosError with the end of its log if not."""
    home.create()
    home.token()
    with locked(home.path / "up.lock"):
        # Somebody else may have started it while we waited for the lock; or it starts, or dies, just now.
        if (transport := _await_foreign(home)) is not None:
            return transport
        if unless_stopped and home.stopped_file.exists():
            raise KaosError(
                "stopped",
                "the local servers were stopped (kaos down); what ran goes on when they are started again",
                hint="kaos up starts them, as any command does",
            )
        from kaos_formats.folders import clean_up

        clean_up(home.stopped_file)
        say("starting the local backend …")
        return _spawn(home, env)


def _await_foreign(home: Home) -> Transport | None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        if (transport := find(home)) is not None:
            return transport
        if not is_locked(home.lock("backend")):
            return None
        if time.monotonic() > deadline:
            raise KaosError(
                "backend_unavailable",
                f"a backend holds {home.lock('backend')} but does not answer",
                hint="kaos down && kaos up",
            )
        time.sleep(POLL_S)


def _spawn(home: Home, env: Mapping[str, str]) -> Transport:
    import subprocess
    import sys

    try:
        log = log_file(home, "backend")
        before = log.stat().st_size
        with log.open("ab") as output:
            child = subprocess.Popen(
                # -P: a stray json.py in the working directory must not become part of the backend.
                [sys.executable, "-P", "-m", "kaos_backend"],
                cwd=home.path,
                env={**env, "KAOS_HOME": str(home.path)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as error:
        raise KaosError(
            "io", f"cannot start the backend: {error}", hint="free some space and try again"
        ) from error
    # Ours to start, not to wait for: without this Python warns of a child left running.
    child_returncode = child.poll
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        exited = child_returncode() is not None
        running = read_running(home, "backend")
        if (
            running is not None
            and (running.pid == child.pid or exited)
            and (transport := find(home)) is not None
        ):
            child.returncode = child.returncode if child.returncode is not None else 0
            return transport
        if exited or time.monotonic() > deadline:
            child.returncode = child.returncode if child.returncode is not None else 0
            what = "stopped at once" if exited else f"did not answer within {START_TIMEOUT_S:g} s"
            raise _start_failed(what, log, before)
        time.sleep(POLL_S)


def _start_failed(what: str, log: Path, offset: int) -> KaosError:
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(offset)
        lines = file.read()[-8192:].decode(errors="replace").strip().splitlines()
        tail = "\n".join("  " + line for line in lines[-12:])
        low = tail.lower()
        if "in use" in low:
            hint = "another program has the port: stop it, or set KAOS_PORT to a free one"
        elif "no space left" in low:
            hint = "free some space and try again"
        else:
            hint = f"the whole log is {log}"
        return KaosError(
            "backend_unavailable", f"the backend {what}. Its last words:\n{tail or '  (none)'}", hint=hint
        )
    return KaosError("backend_unavailable", f"the backend {what}", hint=f"see {log}")


def stop(home: Home, timeout_s: float = STOP_TIMEOUT_S) -> list[Program]:
    """Stop backend and engine, in this order; the names of those that ran.

    Both are built to be killed at any moment, so one that does not heed SIGTERM gets SIGKILL.
    """
    if not home.path.exists():
        return []
    with locked(home.path / "up.lock"):
        # Before anybody can notice that they are gone.
        home.stopped_file.touch()
        return [name for name in PROCESSES if _stop_one(home, name, timeout_s)]


def stop_backend(home: Home) -> None:
    """Stop the backend alone; what runs goes on. Only for who holds ``up.lock``."""
    _stop_one(home, "backend", STOP_TIMEOUT_S)


def active_jobs(home: Home) -> list[dict[str, Any]]:
    """The jobs that have not ended, as far as the local backend can tell at once; starts nothing."""
    try:
        if (transport := find(home, ASK_TIMEOUT_S)) is None:
            return []
        with contextlib.closing(transport):
            return list(transport.json("GET", "/status", timeout_s=ASK_TIMEOUT_S)["jobs"])
    except (KaosError, ConnectionLost):
        return []


def _ended(home: Home, name: Program, timeout_s: float) -> bool:
    """Wait until the process has let go of its lock. (It may linger as a zombie where init is slow.)"""
    deadline = time.monotonic() + timeout_s
    while is_locked(home.lock(name)):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _stop_one(home: Home, name: Program, timeout_s: float) -> bool:
    import psutil

    # Just started: the lock is held a moment before the file says by whom.
    deadline = time.monotonic() + 5.0
    while is_locked(home.lock(name)):
        running = read_running(home, name)
        with contextlib.suppress(psutil.Error):
            if running is not None and _is_ours(process := psutil.Process(running.pid), name):
                process.terminate()
                if not _ended(home, name, timeout_s):
                    process.kill()
                    _ended(home, name, timeout_s)
                return True
        if time.monotonic() > deadline:
            raise KaosError(
                "failed",
                f"{home.lock(name)} is held, but {name}.json names no live {name}",
                hint=f"find the process with `fuser {home.lock(name)}` and end it",
            )
        time.sleep(POLL_S)
    return False


def _is_ours(process: Any, name: Program) -> bool:
    """Whether a pid really runs that part of kaos: a stale file's pid may be another program's now."""
    return bool(process.status() != "zombie" and PROCESSES[name] in process.cmdline())


def _check_version(home: Home, running: Running) -> None:
    # Of a dead one only the file is left, and whatever it says, a new one may be started.
    if running.version not in ("", __version__) and is_locked(home.lock("backend")):
        raise KaosError(
            "version_mismatch",
            f"the backend is of version {running.version}, this kaos of version {__version__}",
            hint="kaos down && kaos up",
        )
