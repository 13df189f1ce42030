"""The kaos that is worn out: its command line, its processes, its files."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

from bench.measure import clean_env
from bench.places import kaos_command

SERVERS = ("backend", "engine")
# The launcher of the next build, and the program that it will run.
FORKED_AHEAD = 2
COMMAND_DEADLINE_S = 120
RETRY_DEADLINE_S = 120
# What a client may be told while the servers die under it; it asks again.
PASSING = {"backend_unavailable", "engine_unavailable", "connection_lost", "busy", "stale_base"}


class Violation(Exception):
    """Something that must never happen."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How one command ended; ``value`` is its JSON, ``error`` the code of the error that it told."""

    status: int
    value: Any
    error: str
    said: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A server at rest. ``descriptors``: without those of packs."""

    rss_bytes: int
    descriptors: int
    threads: int


class Home:
    """One KAOS_HOME. Every process that works for it carries a mark in its environment."""

    def __init__(self, root: Path, cpus: int) -> None:
        self.path = root / "home"
        self.tmp = root / "tmp"
        self.tmp.mkdir()
        self.mark = f"soak-{secrets.token_hex(8)}"
        self.env = clean_env(
            {
                "KAOS_HOME": str(self.path),
                "KAOS_RUNTIME": "process",
                "KAOS_ENGINE_CPUS": str(cpus),
                "NO_COLOR": "1",
                "SOAK": self.mark,
                "TMPDIR": str(self.tmp),
            }
        )
        self.secret = f"soak-value-{secrets.token_hex(8)}"
        self.env["SOAK_VALUE"] = self.secret
        self.counts: Counter[str] = Counter()

    def shell(self, *args: str | Path, typed: str) -> tuple[int, str]:
        """A command at a terminal, where something is typed at the prompt; its exit code and what was shown.

        Raises Violation when it hangs.
        """
        ours, theirs = os.openpty()
        shown, deadline = b"", time.monotonic() + COMMAND_DEADLINE_S
        with subprocess.Popen(
            [kaos_command(), *args],
            env=self.env | {"TERM": "dumb"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ) as process:
            os.close(theirs)
            try:
                while time.monotonic() < deadline:
                    if select.select([ours], [], [], 0.2)[0]:
                        try:
                            shown += os.read(ours, 1 << 16)
                            if typed and shown.endswith((b"# ", b"$ ")):
                                os.write(ours, typed.encode())
                                typed = ""
                        except OSError:  # nobody has the other end any more
                            break
                else:
                    process.kill()
                    raise Violation(f"`kaos {' '.join(map(str, args))}` hangs after {shown[-600:]!r}")
            finally:
                os.close(ours)
        self.counts["commands"] += 1
        return process.returncode, shown.decode("utf-8", "replace")

    def told(self) -> Iterator[str]:
        """Files that tell a secret's value."""
        value = self.secret.encode()
        for path in (path for place in (self.path, self.tmp) for path in place.rglob("*")):
            with contextlib.suppress(OSError):
                if path.is_file() and not path.is_symlink() and value in path.read_bytes():
                    yield str(path)

    def call(self, *args: str | Path) -> Answer:
        """One command of the user's. Raises Violation when it hangs or breaks."""
        words = " ".join(map(str, args))
        try:
            done = subprocess.run(
                [kaos_command(), *args, "--json"],
                env=self.env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=COMMAND_DEADLINE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Violation(f"`kaos {words}` was silent for {COMMAND_DEADLINE_S} s") from None
        error = ""
        for line in done.stderr.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                error = json.loads(line)["error"]["code"]
        if "Traceback" in done.stderr or error == "internal" or (done.returncode > 4 and not error):
            raise Violation(f"`kaos {words}` → {done.returncode}: {done.stderr[-1500:]}")
        value = None
        with contextlib.suppress(ValueError):
            value = json.loads(done.stdout)
        self.counts["commands"] += 1
        return Answer(
            done.returncode, value, error, f"`kaos {words}` → {done.returncode} {done.stderr[-600:]}"
        )

    def ask(self, *args: str | Path, fine: tuple[str, ...] = (), again: tuple[str, ...] = ()) -> Answer:
        """The command's answer, asked for again while the servers are away.

        Raises Violation for any other error than those in ``fine``; ``again`` are further ones that are fine
        once the command was given before, because it was heard and only its answer was lost.
        """
        deadline = time.monotonic() + RETRY_DEADLINE_S
        asked = 0
        while True:
            answer = self.call(*args)
            asked += 1
            if answer.error in fine or (asked > 1 and answer.error in again):
                return answer
            if not answer.error:
                return answer
            if answer.error not in PASSING:
                raise Violation(answer.said)
            if time.monotonic() > deadline:
                raise Violation(f"out of reach for {RETRY_DEADLINE_S} s: {answer.said}")
            self.counts["retries"] += 1
            time.sleep(0.2)

    def pid(self, server: str) -> int | None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return int(json.loads((self.path / f"{server}.json").read_text())["pid"])
        return None

    def kill(self, server: str) -> bool:
        """`kill -9` if it is there and ours."""
        pid = self.pid(server)
        try:
            if pid is None or not self._is_ours(psutil.Process(pid)):
                return False
            os.kill(pid, signal.SIGKILL)
        except (psutil.Error, ProcessLookupError):
            return False
        return True

    def _is_ours(self, process: psutil.Process) -> bool:
        return process.environ().get("SOAK") == self.mark

    def processes(self) -> list[psutil.Process]:
        """All that carry the mark, be it a server, a launcher, a trial or what a trial left behind."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and self._is_ours(process):
                    found.append(process)
        return found

    def workers(self) -> int:
        """Processes beside the servers, and what waits to be a build."""
        servers = {self.pid(server) for server in SERVERS}
        beside = [process for process in self.processes() if process.pid not in servers]
        return sum(not self._is_forked_ahead(process) for process in beside)

    def _is_forked_ahead(self, process: psutil.Process) -> bool:
        """Whether it is a fork server, which lasts as the engine does, or waits to be the next build."""
        try:
            if not any(word.endswith(".forkserver") for word in process.cmdline()):
                return False
            parents = [parent.pid for parent in (process, *process.parents())]
            depth = parents.index(self.pid("engine") or 0)
            if depth == 1:
                return True
            # Of a worker there is another, or something runs in it.
            server = psutil.Process(parents[depth - 1])
            below = server.children(recursive=True)
            builds = any(word.startswith("kaos_pipelines.build") for word in server.cmdline())
            return builds and len(below) <= FORKED_AHEAD
        except (psutil.Error, ValueError):
            return False

    def sample(self) -> dict[str, Sample]:
        found = {}
        for server in SERVERS:
            process = psutil.Process(self.pid(server))
            # Of the packs it reads the engine keeps some open, a bounded number that takes a while to reach.
            packs = sum(file.path.endswith(".pack") for file in process.open_files())
            descriptors = process.num_fds() - packs
            found[server] = Sample(process.memory_info().rss, descriptors, process.num_threads())
        return found

    def findings(self) -> Iterator[str]:
        """What a full check of the store finds, in words."""
        self.ask("status")
        url = json.loads((self.path / "backend.json").read_text())["url"]
        token = (self.path / "token").read_text().strip()
        with requests.post(
            f"{url}/v1/check",
            json={"repair": False},
            headers={"Authorization": f"Bearer {token}"},
            stream=True,
            timeout=600,
        ) as answer:
            lines = [json.loads(line) for line in answer.iter_lines()]
        if not lines or "end" not in lines[-1]:
            yield f"the check did not come to its end: {lines[-1:]}"
        for line in lines:
            if "finding" in line or "error" in line:
                yield json.dumps(line)

    def leftovers(self) -> Iterator[str]:
        """Files that nobody needs any more, once the servers are down."""
        engine = self.path / "engine"
        places = [engine / "tmp", *(engine / "scratch").iterdir(), self.tmp]
        for place in places:
            yield from (str(path) for path in place.iterdir())
        for pattern in (".token.*", ".*.json.*", "engine/trees/.[!b]*", "engine/images/.building/*[!k]"):
            yield from (str(path) for path in self.path.glob(pattern))
