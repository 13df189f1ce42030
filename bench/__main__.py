"""`python -m bench [a] [b] … [h] [--quick] [--keep]`: measure, print a Markdown table, exit 0."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from bench import bundles, containers, grid, inputs, logs, reading, rebuild, report, restart, scale, startup
from bench.measure import BenchError, Row
from bench.places import REPOSITORY, Run, begin

PARTS: dict[str, tuple[str, Callable[[Run], list[Row]]]] = {
    "a": ("cost of a trial", grid.measure),
    "b": ("redeploy with nothing to do", startup.measure_noop),
    "c": ("--help", startup.measure_help),
    "d": ("big bundles", bundles.measure),
    "e": ("trials in containers", containers.measure),
    "f": ("code-only rebuild in containers", rebuild.measure),
    "g": ("a gigabyte of log", logs.measure),
    "h": ("restart of a killed engine", restart.measure),
    "l": ("data laid out for trials", inputs.measure),
    "r": ("looking at large jobs", reading.measure),
    "s": ("stores with a long past", scale.measure),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parts = ", ".join(f"{name} ({about})" for name, (about, _) in PARTS.items())
    parser.add_argument("parts", nargs="*", metavar="part", help=f"what to measure: {parts}; default all")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try it out")
    parser.add_argument(
        "--keep", action="store_true", help="leave the run's files (several GiB) in scratch/bench"
    )
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - PARTS.keys()):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")

    rows: list[Row] = []
    failed = False
    run = begin(options.quick)
    try:
        lines = report.header(run)
        print("\n".join(lines), end="\n\n", flush=True)
        for name in PARTS:
            if options.parts and name not in options.parts:
                continue
            about, measure = PARTS[name]
            print(f"({name}) {about} …", file=sys.stderr, flush=True)
            try:
                rows += measure(run)
            except BenchError as error:
                failed = True
                print(f"({name}) was not measured: {error}", file=sys.stderr)
    finally:
        if not options.keep:
            many = not options.parts or not {"d", "l", "s"}.isdisjoint(options.parts)
            run.sweep(big=not options.quick and many)
    print(report.table(rows))
    print(f"\nkept as {report.save(lines, rows, REPOSITORY / 'bench' / 'results').relative_to(REPOSITORY)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
