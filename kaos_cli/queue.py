"""How the queue of a machine looks in ``kaos status``: its jobs, what they wait for, and its GPUs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from kaos_cli import text
from kaos_cli.render import Column, Table, as_text

Json = Mapping[str, Any]
SHOWN = 20
_INDENT = " " * 10


def queue_lines(jobs: Sequence[Json], width: int) -> list[str]:
    """A row for each of the first jobs, and below it what that waits for, within ``width`` characters."""
    if not jobs:
        return []
    columns = [Column("job"), Column("state"), Column("workspace", shrink=True)]
    columns += [Column(name, right=True) for name in ("done", "failed", "running", "left")]
    rows = []
    for job in jobs[:SHOWN]:
        counts = [f"{job['done']}/{job['total']}", str(job["failed"]), str(job["running"])]
        rows.append(
            [job["id"][:8], job["state"], text.printable(job["workspace"]), *counts, _left(job["left_s"])]
        )
    head, *told = as_text(Table(columns, rows).fitted(width)).split("\n")
    lines = ["", head]
    for line, job in zip(told, jobs, strict=False):
        lines.append(line)
        reason = text.printable(job["reason"])
        lines += textwrap.wrap(reason, width, initial_indent=_INDENT, subsequent_indent=_INDENT)
    if len(jobs) > SHOWN:
        lines.append(f"… and {text.jobs(len(jobs) - SHOWN)} more (--json has them all)")
    return lines


def _left(seconds: float | None) -> str:
    """An estimate, rounded as one; "?" where there is none."""
    if seconds is None:
        return "?"
    return "<1s" if seconds < 1 else f"~{text.duration(round(seconds))}"


def device_lines(devices: Sequence[Json]) -> list[str]:
    """A line for each GPU: what it is, and who is on it."""
    lines = []
    for number, gpu in enumerate(devices):
        memory = gpu["memory_bytes"]
        what = [gpu["model"]] if gpu["model"] else []
        what += [text.size(memory)] if memory else []
        who = "free"
        if gpu["job"]:
            who = f"job {gpu['job'][:8]} of {gpu['workspace']}"
        elif gpu["others"]:
            who = f"taken by {gpu['others']}"
        told = f"{gpu['device']}  {', '.join([*what, who])}"
        lines.append(f"{'' if number else 'GPUs':<9}  {text.printable(told)}")
    return lines
