"""A real registry on a loopback address, which Docker engines speak to without TLS."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import requests

from tests.support.docker_engine import REQUIRED

USER, PASSWORD = "ada", "hunter22"
_HTPASSWD = f"{USER}:$2b$04$kC9AYmMQ2O65j.gaDImO4OqhObYpspElnpupRg3G9r9bAd3N39w2e\n"


class Registry:
    """Debian's `docker-registry`, with an account if it is `private`; `close` ends it."""

    def __init__(self, folder: Path, *, private: bool = False) -> None:
        program = shutil.which("docker-registry")
        if program is None:
            if os.environ.get(REQUIRED):
                raise AssertionError("no docker-registry")
            pytest.skip("docker-registry is not installed")
        folder.mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        lines = ["version: 0.1", "storage:", "  filesystem:", f"    rootdirectory: {folder}/data"]
        lines += ["http:", f"  addr: {self.address}", "log:", "  level: error"]
        if private:
            (folder / "htpasswd").write_text(_HTPASSWD)
            lines += ["auth:", "  htpasswd:", "    realm: tests", f"    path: {folder}/htpasswd"]
        (folder / "config.yml").write_text("\n".join(lines) + "\n")
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "serve", str(folder / "config.yml")], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                requests.get(f"http://{self.address}/v2/", timeout=5)
                return
            except requests.ConnectionError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise AssertionError((folder / "log").read_text()) from None
                time.sleep(0.05)

    def login(self, folder: Path) -> Path:
        """`folder` as what DOCKER_CONFIG names, after `docker login`."""
        folder.mkdir()
        auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (folder / "config.json").write_text(json.dumps({"auths": {self.address: {"auth": auth}}}))
        return folder

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
