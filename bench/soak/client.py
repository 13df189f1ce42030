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
flavour = os.environ["FLAVOUR"]
open(os.path.join(out, "model.bin"), "w").write(f"{{x}} {{flavour}} {{data}}" * {times})
json.dump({{"x": x, "stamp": time.time_ns()}}, open(os.path.join(out, "metrics.json"), "w"))
"""
DOCKERFILE = """FROM python:3
WORKDIR /app
ARG FLAVOUR=plain
ENV SOAK={mark} FLAVOUR=$FLAVOUR
RUN mkdir -p made && echo $FLAVOUR > made/flavour
COPY . .
"""
PLAIN = "plain"
DONE = ("success", "skipped")


@dataclass
class Deployed:
    """What one acknowledged job must come to. ``may_be_killed``: it was stopped, or its code was replaced;
    ``stopped``: those of its points that were. ``again``: its inputs may be those of a job that succeeded.
    """

    points: list[int]
    data: str
    may_be_killed: bool = False
    ended: bool = False
    flavour: str = PLAIN
    stopped: set[int] = field(default_factory=set)
    again: bool = False


@dataclass
class Workspace:
    """What one workspace must hold. ``stamps`` (flavour and model → when it was made) never change again."""

    name: str
    jobs: dict[str, Deployed] = field(default_factory=dict)
    stamps: dict[tuple[str, str], int] = field(default_factory=dict)
    source: int = 0
    data: str = ""
    points: list[int] = field(default_factory=list)
    flavour: str = PLAIN
    retried: bool = False


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
            (1, lambda: self.stop_trial(workspace)),
            (2, lambda: self.retry(workspace)),
            (1, lambda: self.pause(workspace)),
            (1, lambda: self.run_one(workspace)),
            (1, lambda: self.shell(workspace)),
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
        other, for_build = not workspace.jobs, []
        if workspace.jobs and dice.random() < 0.15:
            workspace.source, other = dice.randrange(3), True
        if workspace.jobs and dice.random() < 0.1:
            workspace.flavour = dice.choice([PLAIN, "mint"])
            for_build += (
                ["--no-build-args"] if workspace.flavour == PLAIN else ["--build-arg", "FLAVOUR=mint"]
            )
        if workspace.jobs and dice.random() < 0.1:
            for_build += dice.choice([["--secret", "id=soak,env=SOAK_VALUE"], ["--no-secrets"]])
        if other or for_build:
            for job in workspace.jobs.values():  # another build ends the jobs that use the old one
                job.may_be_killed |= not job.ended
        if not workspace.jobs or dice.random() < 0.4:
            workspace.data = f"data {dice.randrange(6)}\n"
        if not workspace.jobs or dice.random() < 0.6:
            workspace.points = sorted(dice.sample(range(POINTS), dice.randint(1, 6)))
        source, data, grid = self._write(workspace)
        answer = self.home.ask(
            *("train", "deploy", "-w", workspace.name, "-s", source, "-d", data, "-h", grid, "--replace"),
            *for_build,
        ).value
        if not answer or answer["status"] not in ("started", "unchanged") or not answer["job"]:
            raise Violation(f"a deploy in {workspace.name} was answered by {answer}")
        wanted = Deployed(list(workspace.points), workspace.data, flavour=workspace.flavour)
        wanted.again = bool(for_build)
        workspace.jobs.setdefault(answer["job"], wanted)
        self.done[f"deploys {answer['status']}"] += 1

    def _write(self, workspace: Workspace) -> tuple[Path, Path, Path]:
        folder = self.folder / workspace.name
        source, data, grid = folder / "source", folder / "data", folder / "grid.json"
        for path in (source, data):
            path.mkdir(parents=True, exist_ok=True)
        (source / "Dockerfile").write_text(DOCKERFILE.format(mark=self.home.mark))
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
        state, x, model = trial["state"], trial["params"]["x"], (wanted.flavour, trial["model"])
        may_be_killed = wanted.may_be_killed or x in wanted.stopped
        if state in DONE:
            stamp = trial["metrics"].get("stamp")
            if stamp is None and not job["finished"]:
                return  # an open output shows what is finished a little later
            if x == BAD or stamp is None or trial["metrics"]["x"] != x:
                raise Violation(f"{where}: trial {trial}")
            if workspace.stamps.setdefault(model, stamp) != stamp:
                raise Violation(f"{where}: {model} was trained again, or is another's")
            return
        if state == "failed" and x != BAD and x not in wanted.stopped:
            raise Violation(f"{where}: trial {x} failed: {trial['reason']}")
        if model in workspace.stamps and not may_be_killed and job["finished"]:
            raise Violation(f"{where}: {model}, which was there, is {state}: {trial['reason']}")
        if job["finished"] and state != "failed" and not may_be_killed:
            raise Violation(f"{where} has ended ({job['state']}, {job['reason']}), its trial {x} is {state}")

    def fetch(self, workspace: Workspace, id: str) -> None:
        """`train get` of a job that has ended: bit for bit what its trials wrote."""
        found = self.look(workspace, id)
        models = {t["model"]: t["params"]["x"] for t in found["trials"] if t["state"] in DONE}
        if found["finished"] is None or not models:
            return
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        self.home.ask("train", "get", id, "-w", workspace.name, "-o", out, "--data", "--force")
        data, flavour = workspace.jobs[id].data, workspace.jobs[id].flavour
        for model, x in models.items():
            _check_model(out / model, x, flavour, data, f"{model} of job {id}")
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

    def stop_trial(self, workspace: Workspace) -> None:
        """One trial of the newest job: the others come to what they were to come to."""
        id = list(workspace.jobs)[-1]
        open_ = [t for t in self.look(workspace, id)["trials"] if t["state"] in ("waiting", "running")]
        if not open_:
            return
        trial = self._dice.choice(open_)
        workspace.jobs[id].stopped.add(trial["params"]["x"])
        args = ("train", "stop", id, "--trial", str(trial["trial"]), "-w", workspace.name)
        self.home.ask(*args, fine=("not_yet",))
        self.done["trials stopped"] += 1

    def retry(self, workspace: Workspace) -> None:
        """Of a job that has ended: a new one on its inputs, or none if every trial succeeded."""
        id = self._dice.choice(list(workspace.jobs))
        of, only_failed = workspace.jobs[id], self._dice.random() < 0.3
        if self.look(workspace, id)["finished"] is None:
            return
        workspace.retried = True
        args = ("train", "retry", id, "-w", workspace.name, *(("--failed",) if only_failed else ()))
        answer = self.home.ask(*args, fine=("not_yet",)).value
        if answer and answer["status"] == "started":
            wanted = Deployed(of.points, of.data, only_failed, flavour=of.flavour, again=True)
            workspace.jobs[answer["job"]] = wanted
        self.done[f"retries {answer['status'] if answer else 'refused'}"] += 1

    def pause(self, workspace: Workspace) -> None:
        """What is deployed meanwhile does not begin before the resume."""
        self.home.ask("train", "pause", "-w", workspace.name)
        try:
            known = set(workspace.jobs)
            self.deploy(workspace)
            id = list(workspace.jobs)[-1]
            found = self.look(workspace, id)
            begun = [t for t in found["trials"] if t["state"] in ("running", "failed", "success")]
            if id not in known and begun:
                raise Violation(f"{workspace.name} is paused, and in job {id} there is {begun[0]}")
            if id not in known and found["finished"] and not all(t["state"] in DONE for t in found["trials"]):
                raise Violation(f"{workspace.name} is paused, and job {id} is {found['state']}")
        finally:
            self.home.ask("train", "resume", "-w", workspace.name)
        self.done["pauses"] += 1

    def run_one(self, workspace: Workspace) -> None:
        """`train run` of what is deployed: its files come, and no job."""
        x, out = self._dice.randrange(POINTS), self.folder / "run"
        shutil.rmtree(out, ignore_errors=True)
        args = ("-w", workspace.name, "--set", f"x={x}", "--set", "nap=0.1", "-o", out, "--force")
        answer = self.home.ask("train", "run", *args).value
        if answer is None or answer["code"] != (x == BAD):
            raise Violation(f"a run of {x} in {workspace.name} was answered by {answer}")
        if x != BAD:
            (model,) = out.iterdir()
            _check_model(model, x, workspace.flavour, workspace.data, f"a run in {workspace.name}")
        self.done["runs in the foreground"] += 1

    def shell(self, workspace: Workspace) -> None:
        """`train shell` where a trial of a job was that has ended."""
        ended = [id for id, one in workspace.jobs.items() if one.ended]
        if not ended:
            return
        id = self._dice.choice(ended)
        number = self._dice.randrange(len(workspace.jobs[id].points))
        typed = 'echo "point $(cat $KAOS_PARAMS)"; exit 7\n'
        args = ("train", "shell", id, "--trial", str(number), "-w", workspace.name)
        status, shown = self.home.shell(*args, typed=typed)
        if status == 7 and not any(f'"x":{x}' in shown.replace(" ", "") for x in workspace.jobs[id].points):
            raise Violation(f"a shell in trial {number} of job {id} showed {shown[-300:]!r}")
        # 4: a server was killed under it; 1, 3: the job never began to train, or the trial never ran.
        if status not in (7, 4, 3, 1) or "Traceback" in shown:
            raise Violation(f"a shell in trial {number} of job {id} → {status}: {shown[-600:]}")
        self.done[f"shells {'used' if status == 7 else 'lost'}"] += 1

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
            wanted = workspace.jobs.get(newer["id"])
            if workspace.retried if wanted is None else wanted.again:
                continue
            inputs = [(job["source"], job["data"], job["hyper"]) for job in (newer, older)]
            if inputs[0] == inputs[1] and older["state"] == "success":
                raise Violation(f"{newer['id']} repeats {older['id']}, which had succeeded")
        for id in workspace.jobs:
            self.fetch(workspace, id)
            self.done["jobs verified"] += 1


def _check_model(folder: Path, x: int, flavour: str, data: str, which: str) -> None:
    content, one = (folder / "model.bin").read_text(), f"{x} {flavour} {data}"
    if not content or content != one * (len(content) // len(one)):
        raise Violation(f"the model {which} is not what was written")
