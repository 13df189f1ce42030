"""The embedded engine as a process of its own: started, adopted, watched and brought back.

The only place that starts the engine. It runs in a session of its own, so that it (and the trials in it)
outlives the backend; a lock file tells whether one lives.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import kaos_backend
from kaos_backend.errors import EngineUnavailable, SettingsRefused
from kaos_backend.pachd.endpoint import Endpoint, Engine
from kaos_backend.settings import Settings
from kaos_formats.files import write_atomically
from kaos_formats.home import Running, ensure_token, is_locked, log_file, process_lives, read_running

START_TIMEOUT_S = 60.0
_POLL_S = 0.01
# The engine's, see kaos_backend.engine.__main__: it cannot start as asked.
_REFUSES = 2
_SAYS = "kaos engine: "
_LOG_TAIL_BYTES = 2000

_log = logging.getLogger(__name__)


class EmbeddedEngine:
    """Implements ``pachd.connection.Engine`` for the engine of one KAOS_HOME."""

    def __init__(self, settings: Settings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._home = settings.home
        self._port = settings.engine_port
        self._lock = settings.home.lock("engine")
        self._token = ensure_token(settings.home.token_file)
        self._monotonic = monotonic
        self._guard = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._endpoint: Endpoint | None = None
        self._pid: int | None = None

    def current(self) -> Endpoint:
        """The endpoint as last known, without a look at the process."""
        return self._endpoint or self.ensure()

    def ensure(self) -> Endpoint:
        """The endpoint of a living engine: adopts one that holds the lock, else starts one.

        Cheap while it lives. Raises EngineUnavailable with the end of engine.log if it does not come up, and
        SettingsRefused if it refuses what the environment asks for.
        """
        with self._guard:
            if self._endpoint is not None and self.lives():
                return self._endpoint
            info = self._adopt() if is_locked(self._lock) else self._start()
            return self._remember(info)

    def lives(self) -> bool:
        """Whether the engine's process is there right now."""
        if self._process is not None:
            return self._process.poll() is None
        return is_locked(self._lock) and process_lives(self._pid)

    def _adopt(self) -> Running:
        """The engine that holds the lock; it may still be on its way up, with the file of its predecessor."""
        self._process = None
        deadline = self._monotonic() + START_TIMEOUT_S
        while self._monotonic() < deadline:
            info = read_running(self._home, "engine")
            if info is not None and info.port and process_lives(info.pid):
                return info
            if not is_locked(self._lock):
                return self._start()
            time.sleep(_POLL_S)
        raise EngineUnavailable(
            f"a process holds {self._lock} but serves nothing", hint="end it, or run `kaos down`"
        )

    def _start(self) -> Running:
        command = [sys.executable, "-m", "kaos_backend.engine", "--home", str(self._home.path)]
        if self._port is not None:
            command += ["--port", str(self._port)]
        log_path = log_file(self._home, "engine")
        with log_path.open("ab") as log:
            before = log.tell()
            # From the folder above the package, so that a checkout that is not installed works too.
            self._process = subprocess.Popen(
                command,
                cwd=Path(kaos_backend.__file__).parent.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _log.info("started the engine, pid %d", self._process.pid)
        deadline = self._monotonic() + START_TIMEOUT_S
        while self._monotonic() < deadline:
            info = read_running(self._home, "engine")
            if info is not None and info.port and info.pid == self._process.pid:
                return info
            if self._process.poll() is not None:
                if is_locked(self._lock):
                    return self._adopt()  # somebody else's was faster
                code, why = self._process.returncode, _said(log_path, before)
                if code == _REFUSES and why:
                    raise SettingsRefused(
                        why, hint="mend or unset it and try again; nothing was started, nothing is lost"
                    )
                raise EngineUnavailable(
                    f"the engine does not start: {why}"
                    if why
                    else f"the engine ended with exit code {code}: {_tail(log_path)}",
                    hint=f"see {log_path}",
                )
            time.sleep(_POLL_S)
        raise EngineUnavailable(
            f"the engine did not come up in {START_TIMEOUT_S:.0f} s", hint=f"see {log_path}"
        )

    def _remember(self, info: Running) -> Endpoint:
        generation = self._endpoint.generation if self._endpoint is not None else 0
        address = f"{info.host or '127.0.0.1'}:{info.port}"
        self._pid = info.pid
        self._endpoint = Endpoint(address, self._token, generation + 1, embedded=True, socket=info.socket)
        self._write_client_config(address)
        return self._endpoint

    def _write_client_config(self, address: str) -> None:
        """What ``Client.from_config`` of pachyderm-sdk (and pachctl) reads."""
        context = {"pachd_address": f"grpc://{address}", "session_token": self._token}
        config = {"user_id": "kaos", "v2": {"active_context": "kaos", "contexts": {"kaos": context}}}
        text = json.dumps(config, indent=2) + "\n"
        write_atomically(self._home.path / "pachctl.json", text.encode(), durable=False)


class RemoteEngine:
    """Implements ``pachd.connection.Engine`` for a pachd that somebody else keeps running."""

    def __init__(self, address: str, token: str | None) -> None:
        address = address if "://" in address else f"grpc://{address}"
        self._endpoint = Endpoint(address, token, 1, embedded=False)

    def current(self) -> Endpoint:
        return self._endpoint

    def ensure(self) -> Endpoint:
        return self._endpoint


def make_engine(settings: Settings) -> Engine:
    """The embedded engine, or the remote pachd that the settings name."""
    if settings.engine_address is not None:
        return RemoteEngine(settings.engine_address, settings.engine_token)
    return EmbeddedEngine(settings)


def _said(path: Path, offset: int) -> str:
    """What an engine that refuses to start has said for people; "" if it has not."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            lines = file.read(_LOG_TAIL_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.removeprefix(_SAYS) for line in lines[::-1] if line.startswith(_SAYS)), "")


def _tail(path: Path) -> str:
    """The last lines of a log, on one line."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return " / ".join(lines[-3:])
