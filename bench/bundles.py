"""(d) Big data bundles: the first deploy, and the redeploy of the same folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from bench.kaos import started, write_source
from bench.measure import BenchError, Command, Row, Timing, clean_env, compare, timed
from bench.measure import run as call
from bench.places import Run, dvc, dvc_env

KIB, MIB = 1 << 10, 1 << 20


def measure(run: Run) -> list[Row]:
    """Each tool gets its own fresh folders in every round; inputs are in the page cache and on disk."""
    files, bytes_ = (500, 16 * MIB) if run.quick else (20_000, 1024 * MIB)
    rows = measure_tree(run, f"{files:,} files of 4 KiB", lambda where: many_files(where, files))
    return rows + measure_tree(run, f"one file of {bytes_ // MIB} MiB", lambda where: one_file(where, bytes_))


def measure_tree(run: Run, label: str, make: Callable[[Path], None]) -> list[Row]:
    """Fresh homes and repositories each round; the job of a deploy is over before the redeploy is timed."""
    rounds, again = (1, 1) if run.quick else (3, 3)
    tree = run.fresh("tree") / "data"
    make(tree)
    source = write_source(run.fresh("source") / "bench")
    walls: dict[str, list[float]] = {
        name: [] for name in ("cp", "dvc", "dvc again", "kaos", "kaos again", "after")
    }
    for _ in range(rounds):
        target = run.fresh("cp")
        settle()
        walls["cp"].append(timed(["cp", "-r", tree, target]))

        repo = run.fresh("dvc")
        env = dvc_env(repo)
        call([dvc(), "init", "--no-scm", "-q"], repo, env)
        call([dvc(), "config", "cache.type", "copy"], repo, env)
        call(["cp", "-r", tree, repo / "data"])
        add: Command = [dvc(), "add", "-q", "data"]
        settle()
        walls["dvc"].append(timed(add, repo, env))
        walls["dvc again"] += [timed(add, repo, env) for _ in range(again + 1)][1:]

        with started(run.fresh("home")) as kaos:
            settle()
            walls["kaos"].append(kaos.timed("train", "deploy", "-s", source, "-d", tree))
            began = time.perf_counter()
            kaos.wait()
            walls["after"].append(time.perf_counter() - began)
            if kaos.jobs() != 1:
                raise BenchError("the first deploy of a fresh home made more than one job")
            walls["kaos again"] += kaos.timed_noop("-s", source, "-d", tree, n=again)

    timing = {name: Timing(tuple(values)) for name, values in walls.items()}
    first, noop = timing["kaos"], timing["kaos again"]
    print(
        f"    {label}: build and one trivial trial ended {timing['after']} after the deploy had returned",
        flush=True,
    )
    return [
        compare("d", f"{label}: first deploy", first, "dvc add (copy)", timing["dvc"], below=1),
        compare("d", "the same", first, "cp -r", timing["cp"]),
        compare(
            "d", f"{label}: redeploy, unchanged", noop, "dvc add, unchanged", timing["dvc again"], below=1
        ),
        compare("d", "the same", noop, "cp -r", timing["cp"]),
    ]


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
