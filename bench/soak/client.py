"""One client: deploys, looks, fetches, stops and deletes at random, and remembers what it was promised."""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.soak.home import Home, Violation

POINTS = 30
BAD = 7
"""A point that never works."""
TRAIN = """#!/usr/bin/env python3
import json, os, subprocess, sys, time
out, params = sys.argv[1], json.load(open(os.environ["KAOS_PARAMS"]))
print("training", json.dumps(params), flush=True)
x = params["x"]
open("/tmp/soak-junk" if os.environ.get("PACH_PFS", "/pfs") == "/pfs" else "junk", "w").write("junk" * 1000)
if x % 5 == 0:
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
time.sleep(params["nap"])
if x == {bad}:
    sys.exit("this point never works")
data = open(os.path.join(os.environ["KAOS_DATA_DIR"], "data.txt")).read()
open(os.path.join(out, "model.bin"), "w").write(f"{{x}} {{data}}" * {times})
json.dump({{"x": x, "stamp": time.time_ns()}}, open(os.path.join(out, "metrics.json"), "w"))
"""
OPEN = ("queued", "building", "training", "running")


@dataclass
class Deployed:
    """What one acknowledged job must come to. ``may_be_killed``: it was stopped, or its code was replaced."""

    points: list[int]
    data: str
    may_be_killed: bool = False
    ended: bool = False


@dataclass
class Workspace:
    """What one workspace must hold. ``stamps`` (model → when it was made) never change again."""

    name: str
    jobs: dict[str, Deployed] = field(default_factory=dict)
    stamps: dict[str, int] = field(default_factory=dict)
    source: int = 0
    data: str = ""
    points: list[int] = field(default_factory=list)


class Client(threading.Thread):
    """Works until told to end; holds still while ``gate`` is not set."""

    def __init__(self, number: int, home: Home, folder: Path, seed: int) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self.home = home
        self.folder = folder
        self.gate = threading.Event()
        self.resting = threading.Event()
        self.ending = threading.Event()
        self.violations: list[str] = []
        self.done: Counter[str] = Counter()
        self.workspaces: list[Workspace] = []
        self._number = number
        self._made = 0
        self._dice = random.Random(f"{seed} {number}")

    def run(self) -> None:
        while not self.ending.is_set():
            if not self.gate.is_set():
                self.resting.set()
                self.gate.wait(0.2)
                continue
            self.resting.clear()
            self._guarded(self._act)
        self.resting.set()

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Violation as violation:
            self.violations.append(f"{self.name}: {violation}")
        except Exception as error:
            self.violations.append(f"{self.name}: {type(error).__name__}: {error}")

    def _act(self) -> None:
        if not self.workspaces:
            self.create()
            return
        workspace = self._dice.choice(self.workspaces)
        acts: list[tuple[int, Callable[[], None]]] = [
            (8, lambda: self.deploy(workspace)),
            (6, lambda: self.look(workspace, self._dice.choice(list(workspace.jobs)))),
            (3, lambda: self.fetch(workspace, self._dice.choice(list(workspace.jobs)))),
            (2, lambda: self.read_logs(workspace)),
            (2, lambda: self.wait(workspace)),
            (1, lambda: self.stop(workspace)),
            (1, lambda: self.delete(workspace)),
        ]
        if len(self.workspaces) < 2:
            acts.append((1, self.create))
        weights, choices = zip(*acts, strict=True)
        self._dice.choices(choices, weights)[0]()

    def create(self) -> None:
        self._made += 1
        name = f"c{self._number}-{self._made}"
        self.home.ask("workspace", "create", name, again=("exists",))
        self.done["workspaces created"] += 1
        workspace = Workspace(name)
        self.deploy(workspace)
        self.workspaces.append(workspace)

    def deploy(self, workspace: Workspace) -> None:
        """Something new of one kind or several, or the same again."""
        dice = self._dice
        if not workspace.jobs or dice.random() < 0.15:
            workspace.source = dice.randrange(3)
            for job in workspace.jobs.values():  # a new image ends the jobs that use the old one
                job.may_be_killed |= not job.ended
        if not workspace.jobs or dice.random() < 0.4:
            workspace.data = f"data {dice.randrange(6)}\n"
        if not workspace.jobs or dice.random() < 0.6:
            workspace.points = sorted(dice.sample(range(POINTS), dice.randint(1, 6)))
        source, data, grid = self._write(workspace)
        answer = self.home.ask(
            "train", "deploy", "-w", workspace.name, "-s", source, "-d", data, "-h", grid, "--replace"
        ).value
        if not answer or answer["status"] not in ("started", "unchanged") or not answer["job"]:
            raise Violation(f"a deploy in {workspace.name} was answered by {answer}")
        workspace.jobs.setdefault(answer["job"], Deployed(list(workspace.points), workspace.data))
        self.done[f"deploys {answer['status']}"] += 1

    def _write(self, workspace: Workspace) -> tuple[Path, Path, Path]:
        folder = self.folder / workspace.name
        source, data, grid = folder / "source", folder / "data", folder / "grid.json"
        for path in (source, data):
            path.mkdir(parents=True, exist_ok=True)
        (source / "Dockerfile").write_text(
            f"FROM python:3\nWORKDIR /app\nENV SOAK={self.home.mark}\nCOPY . .\n"
        )
        times = (1, 1000, 100_000)[workspace.source]
        (source / "train").write_text(TRAIN.format(bad=BAD, times=times))
        (source / "train").chmod(0o755)
        (data / "data.txt").write_text(workspace.data)
        (data / "more.bin").write_bytes(workspace.data.encode() * 20_000)
        grid.write_text(json.dumps({"x": workspace.points, "nap": 0.2}))
        return source, data, grid

    def look(self, workspace: Workspace, id: str) -> Any:
        """`train info`, held against all that is known of the job; its answer."""
        found = self.home.ask("train", "info", id, "-w", workspace.name).value
        wanted = workspace.jobs[id]
        where = f"job {id} of {workspace.name}"
        if found["id"] != id:
            raise Violation(f"{where} came back as {found['id']}")
        points = sorted(trial["params"]["x"] for trial in found["trials"])
        if points != wanted.points:
            raise Violation(f"{where} has the trials {points}, not {wanted.points}")
        for trial in found["trials"]:
            self._check_trial(workspace, where, trial, wanted, found)
        wanted.ended = found["finished"] is not None
        self.done["looks"] += 1
        return found

    def _check_trial(self, workspace: Workspace, where: str, trial: Any, wanted: Deployed, job: Any) -> None:
        state, x, model = trial["state"], trial["params"]["x"], trial["model"]
        if state in ("success", "skipped"):
            stamp = trial["metrics"].get("stamp")
            if stamp is None and not job["finished"]:
                return  # an open output shows what is finished a little later
            if x == BAD or stamp is None or trial["metrics"]["x"] != x:
                raise Violation(f"{where}: trial {trial}")
            if workspace.stamps.setdefault(model, stamp) != stamp:
                raise Violation(f"{where}: {model} was trained again, or is another's")
            return
        if state == "failed" and x != BAD:
            raise Violation(f"{where}: trial {x} failed: {trial['reason']}")
        if model in workspace.stamps and not wanted.may_be_killed and job["finished"]:
            raise Violation(f"{where}: {model}, which was there, is {state}: {trial['reason']}")
        if job["finished"] and state != "failed" and not wanted.may_be_killed:
            raise Violation(f"{where} has ended ({job['state']}, {job['reason']}), its trial {x} is {state}")

    def fetch(self, workspace: Workspace, id: str) -> None:
        """`train get` of a job that has ended: bit for bit what its trials wrote."""
        found = self.look(workspace, id)
        models = {
            t["model"]: t["params"]["x"] for t in found["trials"] if t["state"] in ("success", "skipped")
        }
        if found["finished"] is None or not models:
            return
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        self.home.ask("train", "get", id, "-w", workspace.name, "-o", out, "--data", "--force")
        data = workspace.jobs[id].data
        for model, x in models.items():
            content = (out / model / "model.bin").read_text()
            one = f"{x} {data}"
            if not content or content != one * (len(content) // len(one)):
                raise Violation(f"the model {model} of job {id} is not what was written")
        if (out / "data" / "data" / "data.txt").read_text() != data:
            raise Violation(f"the data of job {id} are not what was sent")
        self.done["models fetched"] += len(models)

    def read_logs(self, workspace: Workspace) -> None:
        id = self._dice.choice(list(workspace.jobs))
        self.home.ask("train", "logs", id, "-w", workspace.name, "--tail", "5", fine=("waiting",))
        self.done["logs read"] += 1

    def wait(self, workspace: Workspace) -> None:
        id = list(workspace.jobs)[-1]
        self.home.ask("train", "wait", id, "-w", workspace.name, "--timeout", "5s", fine=("timed_out",))
        self.done["waits"] += 1

    def stop(self, workspace: Workspace) -> None:
        id = list(workspace.jobs)[-1]
        workspace.jobs[id].may_be_killed = True
        self.home.ask("train", "stop", id, "-w", workspace.name)
        self.done["stops"] += 1

    def delete(self, workspace: Workspace) -> None:
        self.home.ask("workspace", "kill", workspace.name, "-y", again=("no_such_workspace",))
        self.workspaces.remove(workspace)
        self.done["workspaces deleted"] += 1

    def is_idle(self) -> bool:
        """Whether nothing of this client's runs or waits."""
        for workspace in self.workspaces:
            listed = self.home.ask("train", "list", "-w", workspace.name).value["jobs"]
            if any(job["finished"] is None for job in listed):
                return False
        return True

    def verify(self) -> None:
        """In the end: all that was promised is there, once."""
        for workspace in self.workspaces:
            self._guarded(lambda workspace=workspace: self._verify(workspace))  # type: ignore[misc]

    def _verify(self, workspace: Workspace) -> None:
        listed = self.home.ask("train", "list", "-w", workspace.name).value["jobs"]
        ids = [job["id"] for job in listed]
        if lost := set(workspace.jobs) - set(ids):
            raise Violation(f"{workspace.name} has lost the jobs {sorted(lost)}")
        if len(ids) != len(set(ids)):
            raise Violation(f"{workspace.name} lists a job twice: {ids}")
        for newer, older in pairwise(listed):
            inputs = [(job["source"], job["data"], job["hyper"]) for job in (newer, older)]
            if inputs[0] == inputs[1] and older["state"] == "success":
                raise Violation(f"{newer['id']} repeats {older['id']}, which had succeeded")
        for id in workspace.jobs:
            self.fetch(workspace, id)
            self.done["jobs verified"] += 1
