"""The backend as a process: ``python -m kaos_backend``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests

from kaos_formats.files import read_json
from tests.support.backend import ZSTD
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]


class Process:
    """A backend process on a home."""

    def __init__(self, home: Path, **env: str) -> None:
        self.home = home
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KAOS_")}
        environment |= {"KAOS_HOME": str(home), "KAOS_RUNTIME": "process"}
        environment |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'pipelines'}"} | env
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kaos_backend"], env=environment, stderr=subprocess.PIPE, text=True
        )

    def wait(self) -> Process:
        """Returns when it and its engine answer."""
        eventually(lambda: read_json(self.home / "backend.json").get("pid") == self.process.pid, timeout_s=30)
        self.url = read_json(self.home / "backend.json")["url"] + "/v1"
        self.headers = {"Authorization": f"Bearer {(self.home / 'token').read_text().strip()}"}
        # An engine that is still on its way up would outlive the test unseen.
        self.request("GET", "/workspaces").raise_for_status()
        return self

    def request(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        headers = self.headers | (ZSTD if method == "PUT" else {})
        return requests.request(method, self.url + path, headers=headers, timeout=60, **kwargs)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        code = self.process.wait(20)
        if self.process.stderr is not None:
            self.process.stderr.close()
        return code
