"""A pachd that is not the embedded engine: the same server without its own service, in a process of its own.

``python -m tests.support.elsewhere --home DIR``
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pachyderm_sdk import Client

from kaos_backend.engine import main as engine
from kaos_backend.engine.__main__ import main
from kaos_backend.engine.facade.rpc import Service
from kaos_backend.engine.facade.server import build_server
from kaos_formats import kaos_v1
from kaos_formats.files import read_json
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]


class Pachd:
    """Such a process on a home of its own; it keeps its address when it is started again."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.start()

    def start(self) -> None:
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'pipelines'}", "KAOS_RUNTIME": "process"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.elsewhere", "--home", str(self.home)], env=environment
        )
        eventually(lambda: read_json(self.home / "engine.json").get("pid") == self._process.pid)
        info = read_json(self.home / "engine.json")
        self.address = f"{info['host']}:{info['port']}"
        self.token = (self.home / "token").read_text().strip()

    def client(self) -> Client:
        return Client.from_pachd_address(f"grpc://{self.address}", auth_token=self.token)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def elsewhere(home: Path) -> Iterator[Pachd]:
    pachd = Pachd(home)
    try:
        yield pachd
    finally:
        pachd.kill()


def _without_its_own(services: Sequence[Service], *where: Any) -> Any:
    return build_server([one for one in services if one.name != kaos_v1.SERVICE], *where)


if __name__ == "__main__":
    engine.build_server = _without_its_own
    sys.exit(main())
