"""(l) Data laid out for trials: for the first one, after 1 % of it changed, and after a line more."""

from __future__ import annotations

import json
import os
import time
from contextlib import closing
from pathlib import Path

from bench.bundles import KIB, MIB, many_files, one_file, settle
from bench.kaos import Kaos, started, write_source
from bench.measure import Row, Timing, compare, seconds, timed
from bench.places import Run
from kaos_backend.engine.jobs.db.rows import MIGRATIONS
from kaos_backend.engine.jobs.run.inputs import InputCache
from kaos_backend.engine.jobs.spec.plan import File
from kaos_backend.engine.store.model import RepoKey
from kaos_backend.engine.store.store import Store

_PERCENT = 100


def measure(run: Run) -> list[Row]:
    return measure_layout(run) + measure_a_line(run)


def measure_layout(run: Run) -> list[Row]:
    """What the engine does for a job, in this process, on the store of a home that had both deployed."""
    files, rounds = (500, 1) if run.quick else (20_000, 5)
    tree = run.fresh("tree") / "data"
    many_files(tree, files)
    home = run.fresh("layout-home")
    with started(home) as kaos:
        kaos("train", "deploy", "-s", write_source(run.fresh("source") / "bench"), "-d", tree, "--wait")
        for path in sorted(tree.rglob("*.bin"))[::_PERCENT]:
            path.write_bytes(os.urandom(4 * KIB))
        kaos("train", "deploy", "-d", tree, "--wait")
    walls: dict[str, list[float]] = {"cp -r": [], "cp -rl": [], "first": [], "changed": [], "moved": []}
    with closing(Store.open(home / "engine", migrations=MIGRATIONS)) as store:
        first, changed = _versions(store)
        for _ in range(rounds):
            copy, links = run.fresh("cp"), run.fresh("links")
            settle()
            walls["cp -r"].append(timed(["cp", "-r", tree, copy]))
            walls["cp -rl"].append(timed(["cp", "-rl", copy / "data", links]))
            for shared, last in ((True, "changed"), (False, "moved")):
                cache = InputCache(store, run.fresh("laid-out"))
                cache.open()
                settle()
                wall = _laid_out(cache, first, shared=shared)
                if shared:
                    walls["first"].append(wall)
                walls[last].append(_laid_out(cache, changed, shared=shared))
    timing = {name: Timing(tuple(values)) for name, values in walls.items()}
    label, copied, linked = f"{files:,} files of 4 KiB", timing["cp -r"], timing["cp -rl"]
    return [
        compare("l", f"{label}, laid out first", timing["first"], "cp -r", copied, below=1.5),
        compare("l", f"{label}, 1 % changed", timing["changed"], "cp -rl", linked, below=1.2),
        compare("l", "the same without a sandbox", timing["moved"], "cp -rl", linked),
    ]


def _versions(store: Store) -> list[tuple[bytes, File]]:
    """(tree, what is delivered of it) of each version of the data, the oldest first."""
    found = []
    for commit in reversed(list(store.list_commits(RepoKey("default", "data")))):
        if commit.branch == "master" and commit.root is not None:
            top = next(one for one in store.list_dir(commit.root, "/") if one.kind == "dir")
            repo = commit.key.repo
            file = File(
                "data", repo.project, repo.name, "master", commit.key.id, top.path, top.hash, top.size_bytes
            )
            found.append((commit.root, file))
    return found


def _laid_out(cache: InputCache, version: tuple[bytes, File], *, shared: bool) -> float:
    root, file = version
    lent = cache.lend(shared=shared)
    began = time.perf_counter()
    lent.prepare([file], lambda _: root)
    wall = time.perf_counter() - began
    lent.close()
    return wall


def measure_a_line(run: Run) -> list[Row]:
    """A line appended to a small file beside a large one, until its trial is done; and a point more."""
    size, rounds = (16 * MIB, 1) if run.quick else (1024 * MIB, 3)
    data, grid = run.fresh("large") / "data", run.fresh("grid") / "grid.json"
    one_file(data, size)
    walls: dict[str, list[float]] = {"line": [], "point": []}
    grown = []
    with started(run.fresh("large-home")) as kaos:
        _points(grid, 1)
        kaos("train", "deploy", "-s", write_source(run.fresh("source") / "bench"), "-h", grid)
        with (data / "log.txt").open("a") as log:
            for count in range(rounds + 1):
                log.write(f"line {count}\n")
                log.flush()
                before = _disk_bytes(kaos)
                wall = kaos.timed("train", "deploy", "-d", data, "--wait")
                if not count:
                    continue  # all of it was new
                walls["line"].append(wall)
                grown.append(_disk_bytes(kaos) - before)
                _points(grid, count + 1)
                walls["point"].append(kaos.timed("train", "deploy", "-h", grid, "--wait"))
                _points(grid, 1)
                kaos("train", "deploy", "-h", grid, "--wait")
    line, point = (Timing(tuple(walls[name])) for name in ("line", "point"))
    more = line.median - point.median
    label = f"{size // MIB} MiB, a line more in a file beside it"
    return [
        Row("l", f"{label}: `deploy --wait`", str(line), "a point more of the grid", str(point),
            f"+{seconds(max(0.0, more))}", "< 1 s", more < 1),
        Row("l", "the same, on the disk", f"{sorted(grown)[len(grown) // 2] // KIB} KiB", "the folder",
            f"{size // KIB} KiB", "", "< 1 MiB", max(grown) < MIB),
    ]  # fmt: skip


def _points(grid: Path, count: int) -> None:
    grid.write_text(json.dumps({"x": list(range(count))}))


def _disk_bytes(kaos: Kaos) -> int:
    """As `du` counts what is in a home: each inode once."""
    found = {}
    for folder, _, names in os.walk(kaos.home):
        for name in names:
            try:
                status = os.lstat(f"{folder}/{name}")
            except FileNotFoundError:
                continue
            found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())
