"""(s) A store with a long past: what a commit, a look and a start cost in it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps

from bench import bigstore, memory
from bench.engine import Engine
from bench.measure import BenchError, Row, Timing, seconds
from bench.places import Run

PART = "s"
_PIPELINE = "jobs"


def measure(run: Run) -> list[Row]:
    """Calls of pachyderm-sdk to an engine of its own, wall time; the stores are made by its library."""
    files, commits, jobs, n = (20_000, 400, 200, 5) if run.quick else (1_000_000, 10_000, 10_000, 21)
    rows: list[Row] = []
    home = run.fresh("scale")
    with bigstore.opened(home) as store:
        for name, count, path_of in (
            ("few", 1000, bigstore.in_folders),
            ("many", files, bigstore.in_folders),
            ("few-flat", 1000, bigstore.in_one_folder),
            ("flat", files, bigstore.in_one_folder),
        ):
            bigstore.add_files(store, name, count, path_of)
    with Engine(home) as engine:
        client = engine.client
        for big, small, what, path_of, below in (
            ("many", "few", "in folders of 100", bigstore.in_folders, 3.0),
            ("flat", "few-flat", "in one folder", bigstore.in_one_folder, None),
        ):
            # In turns: a slow minute of the machine hits both.
            walls: dict[str, list[float]] = {big: [], small: []}
            for turn in range(n + 1):
                for name, size in ((big, files), (small, 1000)):
                    wall = _timed(lambda: _commit(client, name, path_of(size // 2), turn))  # noqa: B023
                    walls[name] += [wall] if turn else []
            said = f"commit of one changed file, {files:,} files {what}"
            rows.append(_ratio(said, walls[big], "1,000", walls[small], below))
        rows.append(_look(engine, files, n))
    rows += _commits(run, commits)
    rows.append(_open(run, home, jobs, n))
    return rows + memory.measure(run)


def _ratio(what: str, kaos: list[float], against: str, other: list[float], most: float | None) -> Row:
    ratio = statistics.median(kaos) / statistics.median(other)
    aim, met = ("", None) if most is None else (f"≤ {most:g}×", ratio <= most)
    walls, others = Timing(tuple(kaos)), Timing(tuple(other))
    return Row(PART, what, str(walls), against, str(others), f"{ratio:.2f}×", aim, met)


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _branch(repo: str) -> pfs.Branch:
    return pfs.Branch(
        repo=pfs.Repo(name=repo, type="user", project=pfs.Project(name="default")), name="master"
    )


def _commit(client: Client, repo: str, path: str, number: int) -> None:
    commit = client.pfs.start_commit(branch=_branch(repo))
    with_repo = pfs.Commit(repo=_branch(repo).repo, id=commit.id)
    client.pfs.put_file_from_bytes(commit=with_repo, path=path, data=b"changed %d" % number)
    client.pfs.finish_commit(commit=with_repo)


def _head(repo: str, path: str) -> pfs.File:
    return pfs.File(commit=pfs.Commit(branch=_branch(repo), repo=_branch(repo).repo), path=path)


def _look(engine: Engine, files: int, n: int) -> Row:
    """A folder of a hundred listed and one file inspected, never the same ones, until the last answer came.

    The SDK's decoding of the answers is left out: it is not the engine's, and takes longer.
    """
    walls = []
    for turn in range(n + 1):
        number = (turn * 7919 + 13) * bigstore.FOLDER % files
        folder = _head("many", bigstore.in_folders(number).rpartition("/")[0])
        file = _head("many", bigstore.in_folders(number + 1))
        began = time.perf_counter()
        found = list(engine.stream("/pfs_v2.API/ListFile", bytes(pfs.ListFileRequest(file=folder))))
        engine.unary("/pfs_v2.API/InspectFile", bytes(pfs.InspectFileRequest(file=file)))
        wall = time.perf_counter() - began
        _expect(len(found) == bigstore.FOLDER, "a folder of 100 is listed")
        walls += [wall] if turn else []
    median = statistics.median(walls)
    what = f"a folder of 100 listed, one file inspected, in {files:,}"
    return Row(PART, what, str(Timing(tuple(walls))), "", "", "", "≤ 20 ms", median <= 0.02)


def _commits(run: Run, count: int) -> Iterator[Row]:
    """Start and finish, inspect, the last ten: at the beginning of a branch, and with a long past."""
    home = run.fresh("scale-commits")
    with bigstore.opened(home) as store, store.write() as txn:
        txn.create_repo(bigstore.repo("data"))
    early = _on_a_branch(home, 100)
    with bigstore.opened(home) as store:
        bigstore.add_commits(store, "data", count - 200)
    late = _on_a_branch(home, 100)
    for name, walls in late.items():
        yield _ratio(f"{name}, {count:,} commits on the branch", walls, "the first 100", early[name], 1.5)


def _on_a_branch(home: Path, count: int) -> dict[str, list[float]]:
    walls: dict[str, list[float]] = {"start and finish": [], "inspect": [], "the last 10": []}
    with Engine(home) as engine:
        pfs_ = engine.client.pfs
        pfs_.inspect_repo(repo=_branch("data").repo)
        for _ in range(count):
            began = time.perf_counter()
            commit = pfs_.start_commit(branch=_branch("data"))
            pfs_.finish_commit(commit=commit)
            walls["start and finish"].append(time.perf_counter() - began)
            walls["inspect"].append(_timed(lambda: pfs_.inspect_commit(commit=commit)))  # noqa: B023
            walls["the last 10"].append(
                _timed(lambda: list(pfs_.list_commit(repo=_branch("data").repo, number=10)))
            )
    return walls


def _open(run: Run, home: Path, jobs: int, n: int) -> Row:
    """The engine's process from its start until it answers."""
    with Engine(home) as engine:
        client = engine.client
        client.pfs.create_repo(repo=_branch("input").repo)
        client.pps.create_pipeline(
            pipeline=pps.Pipeline(name=_PIPELINE, project=pfs.Project(name="default")),
            transform=pps.Transform(cmd=["true"]),
            input=pps.Input(pfs=pps.PfsInput(project="default", repo="input", glob="/*")),
        )
        client.pps.inspect_job(
            job=next(client.pps.list_job(projects=[pfs.Project(name="default")], history=-1)).job, wait=True
        )
    with bigstore.opened(home) as store:
        bigstore.add_jobs(store, _PIPELINE, jobs)
    empty = run.fresh("scale-empty")
    full_walls: list[float] = []
    empty_walls: list[float] = []
    for turn in range(n // 4 + 2):
        for at, walls in ((home, full_walls), (empty, empty_walls)):
            with Engine(at) as engine:
                walls += [engine.started_s] if turn else []
                if at is home:
                    some = engine.client.pps.list_job(projects=[pfs.Project(name="default")], history=-1)
                    _expect(len(list(some)) > jobs, "all jobs are there")
    more = statistics.median(full_walls) - statistics.median(empty_walls)
    return Row(
        PART,
        f"the engine starts on a store with all of that and {jobs:,} jobs",
        str(Timing(tuple(full_walls))),
        "an empty one",
        str(Timing(tuple(empty_walls))),
        f"{seconds(more)} more",
        "≤ 1 s more",
        more <= 1.0,
    )


def _expect(true: bool, what: str) -> None:
    if not true:
        raise BenchError(f"this is not so: {what}")
