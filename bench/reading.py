"""(r) What it costs to look at large jobs, to add to them, and to run them."""

from __future__ import annotations

from pathlib import Path

from bench.grid import Grid
from bench.kaos import started, write_source
from bench.measure import Row, Timing, seconds
from bench.memory import SERVERS, peak_mb
from bench.places import Run

AIM_MORE_S = 0.3
AIM_ADDED_S = 0.5
AIM_TRIAL = 1.2
AIM_MB = 300


def measure(run: Run) -> list[Row]:
    """The same commands with a large and with a small job, in turns, and two points added to each; and what
    a trial costs in a very large grid, beside one of 100.

    The grids of 100 and of 10,000 are of one home, so that both are paid the same that is paid once.
    """
    small, large, hundred, huge, n = (4, 24, 10, 40, 2) if run.quick else (10, 2000, 100, 10_000, 5)
    source = write_source(run.fresh("reading") / "bench")
    data = run.fresh("reading-data")
    (data / "data.txt").write_text("data\n")
    rows: list[Row] = []
    with started(run.fresh("reading-few")) as few, started(run.fresh("reading-many")) as many:
        grids = [Grid(run, kaos, source, data) for kaos in (few, many)]
        for grid, trials in zip(grids, (small, large), strict=True):
            grid(trials)
        out = run.fresh("reading-out")
        for what, command in _looks(out).items():
            walls = [[kaos.timed(*command) for kaos in (few, many)] for _ in range(n + 1)][1:]
            rows.append(_more(what, *_timings(walls), small, large, AIM_MORE_S))
        walls = [[grid.add(2) for grid in grids] for _ in range(n + 1)][1:]
        rows.append(_more("2 points added, --wait", *_timings(walls), small, large, AIM_ADDED_S))
    with started(run.fresh("reading-huge")) as kaos:
        grid = Grid(run, kaos, source, data)
        grid(1)  # builds the image
        a_few = grid(hundred) / hundred
        a_lot = grid(huge) / huge
        memory = [peak_mb(kaos, server) for server in SERVERS]
    rows += [
        Row(
            "r",
            f"a grid of {huge:,}: deploy, all done, end of the job, a trial",
            seconds(a_lot),
            f"of {hundred}",
            seconds(a_few),
            f"{a_lot / a_few:.2f}×",
            f"≤ {AIM_TRIAL:g}×",
            a_lot <= AIM_TRIAL * a_few,
        ),
        Row(
            "r",
            "the same: most memory of engine and backend",
            " + ".join(f"{mb:.0f} MB" for mb in memory),
            "",
            "",
            "",
            f"≤ {AIM_MB} MB",
            sum(memory) <= AIM_MB,
        ),
    ]
    return rows


def _looks(out: Path) -> dict[str, tuple[str | Path, ...]]:
    return {
        "train info": ("train", "info"),
        "train get --model best": ("train", "get", "--model", "best", "-o", out, "--force"),
        "train logs --trial 3": ("train", "logs", "--trial", "3"),
        "train list": ("train", "list"),
    }


def _timings(walls: list[list[float]]) -> tuple[Timing, Timing]:
    few, many = zip(*walls, strict=True)
    return Timing(few), Timing(many)


def _more(what: str, few: Timing, many: Timing, small: int, large: int, aim_s: float) -> Row:
    more_s = many.median - few.median
    return Row(
        "r",
        f"`{what}` with {large:,} trials done",
        str(many),
        f"with {small}",
        str(few),
        f"{more_s:+.2f} s",
        f"≤ {aim_s:g} s more",
        more_s <= aim_s,
    )
