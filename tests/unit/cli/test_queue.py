"""The queue and the GPUs in ``kaos status``, at 80 columns."""

from __future__ import annotations

from typing import Any

from kaos_cli.queue import SHOWN, device_lines, queue_lines


def row(**more: Any) -> dict[str, Any]:
    return {
        "workspace": "default", "id": "1a2b3c4d" * 4, "state": "running", "reason": "", "waits_for": [],
        "created": None, "total": 96, "done": 12, "failed": 1, "running": 2, "left_s": 244.2,
    } | more  # fmt: skip


def test_each_job_with_what_it_waits_for() -> None:
    why = "1 trial waits for 2 cpu (0 of 2 free), in use by job 1a2b3c4d of default/train"
    waiting = row(id="9f" * 16, state="waiting", reason=why, workspace="alice", done=0, failed=0, running=0,
                  total=1, left_s=None)  # fmt: skip
    assert queue_lines([row(), waiting, row(left_s=0.2)], 80) == [
        "",
        "job       state    workspace   done  failed  running    left",
        "1a2b3c4d  running  default    12/96       1        2  ~4m04s",
        "9f9f9f9f  waiting  alice        0/1       0        0       ?",
        "          1 trial waits for 2 cpu (0 of 2 free), in use by job 1a2b3c4d of",
        "          default/train",
        "1a2b3c4d  running  default    12/96       1        2     <1s",
    ]
    assert queue_lines([], 80) == []


def test_whatever_is_in_it_fits_the_terminal_and_steers_it_not() -> None:
    jobs = [row(workspace="w" * 60, reason="bad \x1b[2J " * 30) for _ in range(SHOWN + 3)]
    lines = queue_lines(jobs, 80)
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in "".join(lines)
    assert lines[-1] == "… and 3 jobs more (--json has them all)"


def test_gpus_and_who_is_on_them() -> None:
    gpu = {"device": "0", "model": "NVIDIA H100", "memory_bytes": 85_000_000_000, "workspace": "", "job": "",
           "others": ""}  # fmt: skip
    busy = gpu | {"device": "1", "workspace": "alice", "job": "1a2b3c4d" * 4}
    taken = gpu | {"device": "2", "others": "blender (pid 7)"}
    counted = gpu | {"device": "3", "model": "", "memory_bytes": None}
    assert device_lines([gpu, busy, taken, counted]) == [
        "GPUs       0  NVIDIA H100, 85.0 GB, free",
        "           1  NVIDIA H100, 85.0 GB, job 1a2b3c4d of alice",
        "           2  NVIDIA H100, 85.0 GB, taken by blender (pid 7)",
        "           3  free",
    ]
