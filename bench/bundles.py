"""(d) Big data bundles: the first deploy, one with nothing to do, one after 1 % has changed, and `get`."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from bench.kaos import Kaos, started, write_source
from bench.measure import BenchError, Command, Row, Timing, clean_env, compare, timed, within
from bench.measure import run as call
from bench.places import REPOSITORY, Run, dvc, dvc_env

KIB, MIB = 1 << 10, 1 << 20
CHANGED = 100
"""One file of so many is changed."""


def measure(run: Run) -> list[Row]:
    """Each tool gets its own fresh folders in every round; inputs are in the page cache and on disk."""
    counts, bytes_ = ((500,), 16 * MIB) if run.quick else ((20_000, 100_000), 1024 * MIB)
    rows: list[Row] = []
    for files in counts:
        label = f"{files:,} files of 4 KiB"
        rounds = 1 if run.quick or files > 20_000 else 3
        more_s = 0.2 if files <= 20_000 else 1.0
        rows += measure_tree(run, label, "pack", 2, 3, rounds, more_s, lambda at, n=files: many_files(at, n))  # type: ignore[misc]
    label = f"one file of {bytes_ // MIB} MiB"
    rounds = 1 if run.quick else 3
    return rows + measure_tree(run, label, "copy", 1.5, 1.5, rounds, None, lambda at: one_file(at, bytes_))


def measure_tree(
    run: Run,
    label: str,
    floor: str,
    times: float,
    faster: float,
    rounds: int,
    more_s: float | None,
    make: Callable[[Path], None],
) -> list[Row]:
    """Fresh homes and repositories each round; the job of a deploy is over before the redeploy is timed.

    Args:
        floor: what of ``bench.floor`` is the bare work.
        times: how many times as long as that a first deploy may take; ``faster``: how many times faster than
            dvc it should be.
        more_s: what a deploy after a change of 1 % may take beyond one with nothing to do; None: nobody asks.
    """
    tree = run.fresh("tree") / "data"
    make(tree)
    source = write_source(run.fresh("source") / "bench")
    walls: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        settle()
        walls["cp"].append(timed(["cp", "-r", tree, run.fresh("cp") / "data"]))
        settle()
        walls["floor"].append(_floor(floor, tree, run.fresh("floor") / "out"))
        walls["walk"].append(_floor("walk", tree))
        _measure_dvc(run, tree, walls)
        _measure_restic(run, tree, walls)
        _measure_git(run, tree, walls)
        with started(run.fresh("home")) as kaos:
            _measure_kaos(run, kaos, source, tree, walls, change=more_s is not None)
    timing = {name: Timing(tuple(values)) for name, values in walls.items()}
    first, noop = timing["kaos"], timing["noop"]
    print(
        f"    {label}: build and one trivial trial ended {timing['after']} after the deploy had returned",
        flush=True,
    )
    rows = [
        within("d", f"{label}: first deploy", first, f"bare {floor}", timing["floor"], times, 0.3),
        compare("d", "the same", first, "dvc add (copy)", timing["dvc"], below=round(1 / faster, 2)),
        compare("d", "the same", first, "cp -r", timing["cp"]),
        within("d", f"{label}: unchanged", noop, "stat walk", timing["walk"], 2, 0.15),
        compare("d", "the same", noop, "dvc add, unchanged", timing["dvc again"], below=1),
        within("d", f"{label}: get --data", timing["get"], "cp -r", timing["cp"], 2, 0.3),
    ]
    if "git" in timing:
        rows.insert(4, compare("d", "the same", noop, "git add, unchanged", timing["git"]))
    if "restic" in timing:
        rows.insert(2, compare("d", "the same", first, "restic backup", timing["restic"]))
    if more_s is not None:
        rows.insert(-1, within("d", f"{label}: 1 % changed", timing["changed"], "unchanged", noop, 1, more_s))
    return rows


def _measure_dvc(run: Run, tree: Path, walls: dict[str, list[float]]) -> None:
    repo = run.fresh("dvc")
    env = dvc_env(repo)
    call([dvc(), "init", "--no-scm", "-q"], repo, env)
    call([dvc(), "config", "cache.type", "copy"], repo, env)
    call(["cp", "-r", tree, repo / "data"])
    add: Command = [dvc(), "add", "-q", "data"]
    settle()
    walls["dvc"].append(timed(add, repo, env))
    walls["dvc again"] += [timed(add, repo, env) for _ in range(2)][1:]


def _measure_restic(run: Run, tree: Path, walls: dict[str, list[float]]) -> None:
    """Where it is installed."""
    if shutil.which("restic") is None:
        return
    env = clean_env({"RESTIC_PASSWORD": "bench", "RESTIC_REPOSITORY": str(run.fresh("restic") / "repo")})
    call(["restic", "init", "-q"], env=env)
    settle()
    walls["restic"].append(timed(["restic", "backup", "-q", "--no-cache", tree], env=env))


def _measure_git(run: Run, tree: Path, walls: dict[str, list[float]]) -> None:
    """`git add` of what it has already, where it is installed; its index and objects are beside the tree."""
    if shutil.which("git") is None:
        return
    git: Command = ["git", f"--git-dir={run.fresh('git') / 'repo'}", f"--work-tree={tree}"]
    call([*git, "init", "-q"])
    call([*git, "-c", "core.compression=0", "add", "."], tree)
    settle()
    walls["git"] += [timed([*git, "add", "."], tree) for _ in range(2)][1:]


def _measure_kaos(
    run: Run, kaos: Kaos, source: Path, tree: Path, walls: dict[str, list[float]], *, change: bool
) -> None:
    settle()
    walls["kaos"].append(kaos.timed("train", "deploy", "-s", source, "-d", tree))
    began = time.perf_counter()
    kaos.wait()
    walls["after"].append(time.perf_counter() - began)
    if kaos.jobs() != 1:
        raise BenchError("the first deploy of a fresh home made more than one job")
    walls["noop"] += kaos.timed_noop("-s", source, "-d", tree, n=3)
    settle()
    out = run.fresh("get") / "out"
    walls["get"].append(kaos.timed("train", "get", "--data", "-o", out))
    if change:
        for file in sorted(path for path in tree.rglob("*") if path.is_file())[::CHANGED]:
            with file.open("r+b") as content:
                content.write(os.urandom(16))
        walls["changed"].append(kaos.timed("train", "deploy", "-s", source, "-d", tree))


def _floor(what: str, tree: Path, *out: Path) -> float:
    return timed([sys.executable, "-m", "bench.floor", what, tree, *out], cwd=REPOSITORY)


def settle() -> None:
    """Write back what set-up left dirty, so that no tool pays for another's pages."""
    call(["sync"], env=clean_env())


def many_files(where: Path, count: int) -> None:
    """Random 4 KiB files, 200 to a folder."""
    for number in range(count):
        folder = where / f"{number // 200:03}"
        if number % 200 == 0:
            folder.mkdir(parents=True)
        (folder / f"{number:05}.bin").write_bytes(os.urandom(4 * KIB))


def one_file(where: Path, size: int) -> None:
    """Random bytes, which no compression can help with."""
    where.mkdir(parents=True)
    with (where / "big.bin").open("wb") as out:
        for _ in range(size // MIB):
            out.write(os.urandom(MIB))
