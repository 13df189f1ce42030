"""A kaos of its own for a test: the real command line over real processes in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pachyderm_sdk import Client

from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
KAOS = Path(sys.executable).with_name("kaos")


class Home:
    """KAOS_HOME in a temporary folder; every command is a real `kaos` process."""

    def __init__(self, path: Path, env: Mapping[str, str] | None = None, kaos: Path = KAOS) -> None:
        self.path = path
        self.kaos = kaos
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("KAOS_", "PACH"))}
        # Also where a Docker engine answers: tests of that say so.
        own = {"KAOS_HOME": str(path), "KAOS_RUNTIME": "process", "NO_COLOR": "1", "COLUMNS": "80"}
        self.env = kept | own | dict(env or {})

    def run(
        self,
        *args: str | Path,
        check: bool = True,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 120.0,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(self.kaos), *map(str, args)],
            env=self.env | dict(env or {}),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"kaos {' '.join(map(str, args))} -> {done.returncode}\n"
                f"{done.stdout}\n{done.stderr}\n{self.logs()}"
            )
        return done

    def spawn(self, *args: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.kaos), *map(str, args)],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def json(self, *args: str | Path, check: bool = True) -> Any:
        return json.loads(self.run(*args, "--json", check=check).stdout)

    def logs(self) -> str:
        """The tails of the backend's and the engine's own logs, for the message of a failing test."""
        tails = []
        for name in ("backend", "engine"):
            log = self.path / "logs" / f"{name}.log"
            if log.exists():
                tails.append(f"--- {name}.log\n{log.read_text(errors='replace')[-4000:]}")
        return "\n".join(tails)

    def pid(self, process: str) -> int:
        return int(json.loads((self.path / f"{process}.json").read_text())["pid"])

    def kill(self, process: str) -> None:
        """`kill -9` of `backend` or `engine`; returns when the process is gone."""
        try:
            pid = self.pid(process)
            os.kill(pid, signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            return
        eventually(lambda: not alive(pid), f"{process} {pid} gone")

    def client(self) -> Client:
        """A pachyderm-sdk client made the way a stranger's program would make it."""
        env = self.json("status", "--env")["env"]
        return Client(
            host=env["PACHD_PEER_SERVICE_HOST"],
            port=int(env["PACHD_PEER_SERVICE_PORT"]),
            auth_token=env["PACH_PYTHON_AUTH_TOKEN"],
        )

    def down(self) -> None:
        self.run("down", check=False)
        for process in ("backend", "engine"):
            self.kill(process)


def alive(pid: int) -> bool:
    """Whether a process runs (one that is dead but not yet reaped does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or before it was read
        return False
