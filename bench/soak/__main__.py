"""`python -m bench.soak --minutes 30 --clients 8 [--seed N] [--keep]`: what wears off, and what is left over.

Clients work through the real command line in a KAOS_HOME of their own: first while both servers are killed
(`kill -9`) at random, then with servers that live, whose memory and descriptors at rest must not grow. Exit
status 1 for anything lost, doubled, damaged, left over or grown.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.soak.client import Client
from bench.soak.home import SERVERS, Home, Sample, Violation

SETTLE_DEADLINE_S = 300
CALM_PART = 0.4
GROWTH = 1.25
SLACK_BYTES = 24 << 20
SLACK_HANDLES = 8


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="of work; rests come on top")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--points", type=int, default=3, help="rests at which the servers are measured")
    parser.add_argument("--cpus", type=int, default=4, help="cores that the engine hands out")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", action="store_true", help="leave the home for a look at it")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}, {options.clients} clients, {options.minutes:g} minutes", flush=True)
    root = Path(tempfile.mkdtemp(prefix="kaos-soak-"))
    soak = Soak(Home(root, options.cpus), root, options.clients, seed)
    try:
        soak.run(options.minutes * 60, options.points)
    finally:
        soak.end()
        if options.keep:
            print(f"kept in {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)
    return soak.report()


class Soak:
    """One run and what it found."""

    def __init__(self, home: Home, root: Path, clients: int, seed: int) -> None:
        self.home = home
        self.violations: list[str] = []
        self.kills = dict.fromkeys(SERVERS, 0)
        self.samples: list[dict[str, Sample]] = []
        self.clients = [Client(number, home, root / f"client-{number}", seed) for number in range(clients)]
        self._dice = random.Random(seed)

    def run(self, seconds: float, points: int) -> None:
        """All of it; what goes wrong is noted, not raised."""
        self.home.ask("up")
        for client in self.clients:
            client.start()
        calm = seconds * CALM_PART
        try:
            self._say("clients work, servers are killed")
            self._kill_for(seconds - calm)
            self._rest("after the kills")
            self._say("clients work, servers live")
            for number in range(points + 1):
                self._work_for(calm / (points + 1))
                self._rest("at rest")
                self.samples.append(self._sample())
                self._say(f"measured {number + 1} of {points + 1}")
            self._say("all that was promised is looked at")
            with ThreadPoolExecutor() as pool:
                list(pool.map(Client.verify, self.clients))
            self.violations += [f"the check found {finding}" for finding in self.home.findings()]
        except Violation as violation:
            self.violations.append(str(violation))

    def _say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    def _work(self) -> None:
        for client in self.clients:
            client.resting.clear()
            client.gate.set()

    def _work_for(self, seconds: float) -> None:
        self._work()
        time.sleep(seconds)

    def _kill_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self._work()
        while time.monotonic() < end:
            time.sleep(self._dice.uniform(0.5, 6))
            for server in self._dice.choice([("engine",), ("backend",), SERVERS]):
                self.kills[server] += self.home.kill(server)

    def _rest(self, when: str) -> None:
        """Until no client asks for anything, no job is open and no worker is left. Raises Violation."""
        for client in self.clients:
            client.gate.clear()
        deadline = time.monotonic() + SETTLE_DEADLINE_S
        for client in self.clients:
            if not client.resting.wait(max(0.0, deadline - time.monotonic())):
                raise Violation(f"{when}: {client.name} hangs")
        while not all(client.is_idle() for client in self.clients):
            if time.monotonic() > deadline:
                raise Violation(f"{when}: jobs were still open after {SETTLE_DEADLINE_S} s")
            time.sleep(0.5)
        while self.home.workers():
            if time.monotonic() > deadline:
                left = [" ".join(process.cmdline())[:200] for process in self.home.processes()]
                raise Violation(f"{when}: workers were still there after {SETTLE_DEADLINE_S} s: {left}")
            time.sleep(1)

    def _sample(self) -> dict[str, Sample]:
        self.home.ask("status")
        time.sleep(2)
        return self.home.sample()

    def end(self) -> None:
        """The servers go down; nothing stays behind them."""
        for client in self.clients:
            client.ending.set()
        for client in self.clients:
            if client.ident is not None:
                client.join(60)
        try:
            self.home.call("down")
            time.sleep(1)
            self.violations += [f"left over: {path}" for path in self.home.leftovers()]
            self.violations += [f"a secret is told in {path}" for path in self.home.told()]
        except (Violation, OSError) as error:
            self.violations.append(str(error))
        for process in self.home.processes():
            self.violations.append(f"still runs: {process.pid} {process.cmdline()}")
            process.kill()

    def report(self) -> int:
        """Prints what was done and found; the exit status."""
        done = sum((client.done for client in self.clients), self.home.counts)
        for client in self.clients:
            self.violations += client.violations
        print("\n| what | count |\n|---|---|")
        for server, count in self.kills.items():
            print(f"| kill -9 of the {server} | {count} |")
        for what, count in sorted(done.items()):
            print(f"| {what} | {count} |")
        print("\n| server | at rest: memory, MiB | descriptors | threads |\n|---|---|---|---|")
        for server in SERVERS:
            series = [sample[server] for sample in self.samples]
            print(
                f"| {server} | {', '.join(f'{one.rss_bytes / 2**20:.0f}' for one in series)} "
                f"| {', '.join(str(one.descriptors) for one in series)} "
                f"| {', '.join(str(one.threads) for one in series)} |"
            )
            self.violations += grown(server, series)
        for violation in self.violations[:40]:
            print(f"\nVIOLATION {violation}")
        print(f"\n{len(self.violations)} violations")
        return 1 if self.violations else 0


def grown(server: str, series: list[Sample]) -> list[str]:
    """The last rest against the first one, which comes after the servers are warm."""
    if len(series) < 2:
        return [f"the {server} was not measured"]
    first, last = series[0], series[-1]
    found = []
    if last.rss_bytes > first.rss_bytes * GROWTH + SLACK_BYTES:
        found.append(f"the {server}'s memory grew from {first.rss_bytes} to {last.rss_bytes} bytes")
    if last.descriptors > first.descriptors + SLACK_HANDLES:
        found.append(f"the {server}'s descriptors grew from {first.descriptors} to {last.descriptors}")
    if last.threads > first.threads + SLACK_HANDLES:
        found.append(f"the {server}'s threads grew from {first.threads} to {last.threads}")
    return found


if __name__ == "__main__":
    sys.exit(main())
