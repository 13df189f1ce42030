"""`python -m bench.load --clients 50 --minutes 10`: one backend, served with TLS, and many who use it.

Each client has a token of its own and deploys, follows and lists over TLS as the command line does. Exit
status 1 for any error, for a trial that is lost or began twice, and for memory that grows.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import trustme

from bench.load.client import TRAIN, Client, at_once, summary
from bench.measure import clean_env, run
from bench.places import kaos_command
from kaos_cli.transport import Endpoint
from kaos_formats.home import Home, Program, read_running

SERVERS: tuple[Program, ...] = ("backend", "engine")
GROWTH = 1.25
SLACK_BYTES = 32 << 20
SAMPLE_S = 1.0
START_S = 60


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--workspaces", type=int, default=10, help="that they share")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="kaos-load-"))
    server = Server(root)
    try:
        server.start()
        return measure(server, options.clients, options.workspaces, options.minutes * 60)
    finally:
        server.end()
        shutil.rmtree(root, ignore_errors=True)


class Server:
    """`kaos backend serve` on a home of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = Home(root / "home")
        self.env = clean_env({"KAOS_HOME": str(self.home.path), "KAOS_RUNTIME": "process", "NO_COLOR": "1"})
        self.samples: dict[Program, list[int]] = {name: [] for name in SERVERS}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        authority = trustme.CA()
        made = authority.issue_cert("localhost")
        self.ca_cert = authority.cert_pem.bytes().decode()
        made.private_key_pem.write_to_path(self.root / "key.pem")
        made.cert_chain_pems[0].write_to_path(self.root / "cert.pem")
        tls = ("--tls-cert", self.root / "cert.pem", "--tls-key", self.root / "key.pem")
        with (self.root / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*map(str, (kaos_command(), "backend", "serve", "--port", "0", *tls))],
                env=self.env,
                stderr=log,
            )
        deadline = time.monotonic() + START_S
        while (running := read_running(self.home, "backend")) is None or not running.serves:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise SystemExit((self.root / "log").read_text())
            time.sleep(0.05)
        self.url = f"https://localhost:{running.serves.rpartition(':')[2]}"

    def kaos(self, *args: str | Path) -> str:
        return run([kaos_command(), *args], env=self.env)

    def prepare(self, workspace: str) -> None:
        """Code and data that all of its clients train with."""
        folder = self.root / workspace
        (folder / "data").mkdir(parents=True)
        (folder / "src").mkdir()
        (folder / "src" / "Dockerfile").write_text("FROM python:3\nWORKDIR /app\nCOPY . .\n")
        (folder / "src" / "train").write_text(TRAIN)
        (folder / "src" / "train").chmod(0o755)
        (folder / "data" / "data.txt").write_text(f"data of {workspace}\n")
        self.kaos("workspace", "create", workspace)
        where = ("-w", workspace, "-s", folder / "src", "-d", folder / "data")
        self.kaos("train", "deploy", *where, "--wait")

    def endpoint(self, name: str, workspace: str) -> Endpoint:
        token = self.kaos("token", "create", name, "--workspace", workspace, "--quiet").strip()
        return Endpoint(self.url, token, local=False, ca_cert=self.ca_cert)

    def sample(self, ending: threading.Event) -> None:
        """Notes what memory the servers have, until ``ending``."""
        while not ending.wait(SAMPLE_S):
            for name, samples in self.samples.items():
                running = read_running(self.home, name)
                if running is not None:
                    samples.append(psutil.Process(running.pid).memory_info().rss)

    def end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
        subprocess.run([str(kaos_command()), "down"], env=self.env, capture_output=True, check=False)


def measure(server: Server, clients: int, workspaces: int, seconds: float) -> int:
    names = [f"team-{number}" for number in range(workspaces)]
    for name in names:
        server.prepare(name)
    endpoints = [
        (server.endpoint(f"client-{number}", names[number % workspaces]), names[number % workspaces])
        for number in range(clients)
    ]
    deadline = time.monotonic() + seconds
    working = [
        Client(number, endpoint, workspace, lambda _rounds: time.monotonic() > deadline)
        for number, (endpoint, workspace) in enumerate(endpoints)
    ]
    ending = threading.Event()
    sampling = threading.Thread(target=server.sample, args=(ending,))
    sampling.start()
    problems = at_once(working)
    ending.set()
    sampling.join()
    print(f"{clients} clients, {workspaces} workspaces, {seconds / 60:g} minutes, {os.cpu_count()} cores")
    for what, figure in summary(working).items():
        told = f"{figure[0]:.2f} s, 99 % below {figure[1]:.2f} s" if isinstance(figure, tuple) else figure
        print(f"{what:12}  {told}")
    for name, samples in server.samples.items():
        quarter = max(1, len(samples) // 4)
        early, late = max(samples[:quarter]), max(samples[-quarter:])
        print(f"{name:12}  {early >> 20} MiB in the first quarter, {late >> 20} MiB in the last")
        if late > early * GROWTH + SLACK_BYTES:
            problems.append(f"the {name} grew from {early >> 20} to {late >> 20} MiB")
    for problem in problems:
        print(f"PROBLEM  {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
