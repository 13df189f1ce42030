"""An engine by itself, as the backend starts it, and a client of its protocol."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
from pachyderm_sdk import Client

from bench.measure import BenchError, clean_env

_LOOK_S = 0.002
_DEADLINE_S = 120.0


class Engine:
    """A running engine. `started_s`: seconds from its process's start until it had answered a call."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.started_s = 0.0

    def __enter__(self) -> Engine:
        info = self._home / "engine.json"
        info.unlink(missing_ok=True)
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kaos_backend.engine", "--home", self._home],
            env=clean_env({"KAOS_RUNTIME": "process"}),
            stdin=subprocess.DEVNULL,
        )
        while not info.exists():
            if self._process.poll() is not None or time.perf_counter() - began > _DEADLINE_S:
                raise BenchError(f"the engine of {self._home} did not start: see logs/engine.log there")
            time.sleep(_LOOK_S)
        found = json.loads(info.read_text())
        token = (self._home / "token").read_text().strip()
        self.client = Client(host=found["host"], port=found["port"], auth_token=token)
        self._channel = grpc.insecure_channel(f"{found['host']}:{found['port']}")
        self._metadata = (("authn-token", token),)
        self.client.get_version()
        self.started_s = time.perf_counter() - began
        return self

    def unary(self, method: str, request: bytes) -> bytes:
        """A call as bytes."""
        answer: bytes = self._channel.unary_unary(method, None, None)(request, metadata=self._metadata)
        return answer

    def stream(self, method: str, request: bytes) -> Iterator[bytes]:
        """A call whose answers come as bytes."""
        yield from self._channel.unary_stream(method, None, None)(request, metadata=self._metadata)

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self._process.terminate()
        self._process.wait(60)
