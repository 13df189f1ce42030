"""One of many who deploy, follow and list at a shared backend at once, and what each of them was promised."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kaos_cli.client import KaosClient
from kaos_cli.remote import connect
from kaos_cli.transport import Endpoint
from kaos_formats import loglines

POINTS = 2
POINTS_A_CLIENT = 1_000_000
SAID = "training "
"""How a trial's log begins, once."""

TRAIN = f"""#!/bin/sh
echo "{SAID}$(cat "$KAOS_PARAMS")"
cat "$KAOS_DATA_DIR"/* > "$1/data.txt"
echo "{{\\"stamp\\": $(date +%s%N)}}" > "$1/metrics.json"
"""


class Client(threading.Thread):
    """Works until ``done()``: each round deploys fresh points and one of the round before, follows the logs
    to the end, and looks at the job and at the list of all. ``problems`` is what should never happen.
    """

    def __init__(self, number: int, endpoint: Endpoint, workspace: str, done: Callable[[int], bool]) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self._number = number
        self._workspace = workspace
        self._done = done
        self._client = KaosClient(lambda: connect(endpoint, self._say), self._say)
        self.problems: list[str] = []
        self.told: list[str] = []
        self._stamps: dict[str, float] = {}
        self.rounds = 0
        self.trials = 0
        self.took_s: defaultdict[str, list[float]] = defaultdict(list)

    def run(self) -> None:
        try:
            while not self._done(self.rounds):
                self._round()
                self.rounds += 1
        except Exception as error:
            self._problem(f"{type(error).__name__}: {error}")
        finally:
            self._client.close()

    def _round(self) -> None:
        ws, first = self._workspace, self._number * POINTS_A_CLIENT + self.rounds * POINTS
        fresh = list(range(first, first + POINTS))
        before = [first - 1] if self.rounds else []
        points = before + fresh
        request = {"hyper": {"x": points}, "author": "somebody@else"}
        with self._timed("deploy"):
            answer = self._client.deploy(ws, request)
        if answer["status"] != "started":
            return self._problem(f"a deploy of {fresh} was {answer['status']}")
        ran: Counter[str] = Counter()
        with self._timed("follow"):
            state = self._follow(answer["job"], ran)
        if state != "success":
            self._problem(f"job {answer['job']} ended {state}")
        with self._timed("info"):
            job = self._client.job(ws, answer["job"])
        if [trial["state"] for trial in job["trials"]].count("success") < POINTS:
            self._problem(f"job {answer['job']} lost a trial: {job['trials']}")
        if job["inputs"]["hyper"]["author"] != f"client-{self._number}":
            self._problem(f"job {answer['job']} is by {job['inputs']['hyper']['author']}")
        # Of one that was done already the log is that of then, if the follower comes to it before the end.
        if max(ran.values(), default=0) > 1 or len(ran) < len(fresh):
            self._problem(f"trials of job {answer['job']} began {dict(ran)} times")
        for trial in job["trials"]:
            stamp = trial["metrics"].get("stamp")
            if stamp != self._stamps.setdefault(trial["model"], stamp):
                self._problem(f"model {trial['model']} was made twice")
        with self._timed("list"):
            listed = self._client.jobs(ws, 20)
        if answer["job"] not in [one["id"] for one in listed] and len(listed) < 20:
            self._problem(f"job {answer['job']} is not listed")
        self.trials += POINTS
        return None

    def _follow(self, job: str, ran: Counter[str]) -> str:
        for block in self._client.logs(self._workspace, job, None, None, True, None):
            if block.get("end"):
                return str(block["state"])
            for line in loglines.lines(block.get("data", b"")):
                if line.user and line.text.startswith(SAID):
                    ran[line.text] += 1
        return "without an end"

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.took_s[what].append(time.monotonic() - began)

    def _say(self, text: str) -> None:
        self.told.append(text)

    def _problem(self, text: str) -> None:
        self.problems.append(f"{self.name}: {text}")


def at_once(clients: list[Client]) -> list[str]:
    """Lets all of them work to their end; what should never have happened."""
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return [problem for client in clients for problem in client.problems]


def summary(clients: list[Client]) -> dict[str, Any]:
    """Rounds, trials, and what each kind of request took, in seconds: the middle one and the 99th of 100."""
    figures: dict[str, Any] = {
        "rounds": sum(client.rounds for client in clients),
        "trials": sum(client.trials for client in clients),
        "told to wait": sum(len(client.told) for client in clients),
    }
    for what in ("deploy", "follow", "info", "list"):
        took = sorted(s for client in clients for s in client.took_s[what])
        if took:
            figures[what] = (took[len(took) // 2], took[min(len(took) - 1, len(took) * 99 // 100)])
    return figures
