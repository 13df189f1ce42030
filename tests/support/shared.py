"""A backend that several people use: served with TLS by the real command line; each has their own home."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
from pathlib import Path
from typing import Any

import requests
import trustme

from kaos_formats.home import read_running
from tests.support.home import Home
from tests.support.waiting import eventually


class Certificates:
    """A CA, and the files of a certificate that it signed for this machine."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._ca = trustme.CA()
        self.ca, self.cert, self.key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
        self._ca.cert_pem.write_to_path(self.ca)
        self.issue()

    def issue(self, *names: str) -> None:
        """Another certificate in place of the one that is there."""
        made = self._ca.issue_cert("localhost", "127.0.0.1", *names)
        made.private_key_pem.write_to_path(self.key)
        self.cert.write_bytes(b"".join(one.bytes() for one in made.cert_chain_pems))

    def context(self) -> ssl.SSLContext:
        """What a client trusts."""
        return ssl.create_default_context(cafile=str(self.ca))


class Shared:
    """`kaos backend serve` on a home below ``folder``, with TLS, and those who use it."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        self.tls = Certificates(folder / "tls")
        self.home = Home(folder / "server", env)
        self.port = 0
        self.serving: subprocess.Popen[str]

    def start(self) -> Shared:
        """Returns when others can reach it; it keeps its port."""
        files = ("--tls-cert", self.tls.cert, "--tls-key", self.tls.key)
        self.serving = self.home.spawn("backend", "serve", "--port", str(self.port), *files)
        eventually(self._serves, "it serves", 30)
        return self

    def _serves(self) -> bool:
        if self.serving.poll() is not None:
            raise AssertionError(f"it ended: {self.serving.communicate()[1]}")
        running = read_running(self.home_of(), "backend")
        if running is None or running.pid != self.serving.pid or not running.serves:
            return False
        self.port = int(running.serves.rpartition(":")[2])
        return True

    def home_of(self) -> Any:
        """The server's home as the programs see it."""
        from kaos_formats.home import Home as Folder

        return Folder(self.home.path)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def token(self, name: str, *options: str) -> str:
        return self.home.run("token", "create", name, *options, "-q").stdout.strip()

    def make_token(self, name: str, workspace: str) -> str:
        """As ``token``, without a command of its own."""
        running = read_running(self.home_of(), "backend")
        assert running is not None
        owner = {"Authorization": f"Bearer {(self.home.path / 'token').read_text().strip()}"}
        body = {"name": name, "rights": "write", "workspaces": [workspace]}
        made = requests.post(f"{running.url}/v1/tokens", json=body, headers=owner, timeout=30)
        return str(made.json()["token"])

    def colleague(self, name: str, *options: str) -> Home:
        """Somebody with a token and a home of their own, which uses this backend."""
        home = Home(self.folder / name)
        token = self.token(name, *options)
        home.run("init", "-e", self.url, "--name", "lab", "--token", token, "--ca-cert", self.tls.ca)
        return home

    def end(self, how: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Its exit code and what it logged."""
        os.kill(self.serving.pid, how)
        _, log = self.serving.communicate(timeout=30)
        return self.serving.returncode, log

    def close(self) -> None:
        if self.serving.poll() is None:
            self.end(signal.SIGKILL)
        self.home.down()
