"""Wait for a job: bars while it builds and trains, a leaderboard and an exit code when it is over.

Asking is the only way to learn how a job does, so the pause between two questions grows with the time waited
(5 %, 20 ms to 0.5 s): a trivial job is not kept waiting by its own observer, a long one is hardly asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import typer

from kaos_cli.errors import FAILED, INTERRUPTED, OK, KaosError
from kaos_cli.progress import stage
from kaos_cli.session import Session

FINAL = frozenset({"success", "partial", "failed", "killed"})
PAUSE_MIN_S = 0.02
PAUSE_MAX_S = 0.5
PAUSE_SHARE = 0.05
PATIENCE_S = 60.0
PASSING = frozenset({"engine_unavailable", "connection_lost"})


def exit_code(state: str) -> int:
    """0 only if every trial succeeded."""
    return OK if state == "success" else FAILED


def pause(waited_s: float, asking_s: float) -> float:
    """Seconds to wait before the next question, after ``waited_s`` in all; at least what asking takes."""
    return min(PAUSE_MAX_S, max(PAUSE_MIN_S, PAUSE_SHARE * waited_s, asking_s))


def wait_for(session: Session, ws: str, job_id: str) -> tuple[dict[str, Any], int]:
    """The finished job and the exit code. Ctrl-C leaves the job running and says how to come back to it."""
    try:
        job = _poll(session, ws, job_id, time.monotonic, time.sleep)
    except KeyboardInterrupt:
        short, flag = job_id[:8], session.flag(ws)
        session.terminal.warn(
            f"\ndetached; job {short} goes on. Come back: kaos train logs -f {short}{flag}, "
            f"end it: kaos train stop {short}{flag}"
        )
        raise typer.Exit(INTERRUPTED) from None
    if not session.terminal.json:
        from kaos_cli.views import show_outcome

        show_outcome(session, ws, job)
    return job, exit_code(job["state"])


def _poll(
    session: Session, ws: str, job_id: str, clock: Callable[[], float], sleep: Callable[[float], None]
) -> dict[str, Any]:
    started = clock()
    seen = started
    with (
        stage(session.terminal, "build", 1) as build,
        stage(session.terminal, "train") as train,
    ):
        while True:
            asked = clock()
            try:
                job = session.client.job(ws, job_id)
                seen = clock()
            except KaosError as error:
                # A backend or engine that was killed comes back by itself; the job does too.
                if error.code not in PASSING or clock() - seen > PATIENCE_S:
                    raise
                sleep(PAUSE_MAX_S)
                continue
            if job["state"] in FINAL:
                return job
            if job["state"] == "building":
                build.show(0, 1)
            elif pipeline := job.get("train"):
                build.close()
                done = pipeline["processed"] + pipeline["skipped"] + pipeline["failed"]
                failed = f"{pipeline['failed']} failed" if pipeline["failed"] else ""
                train.show(done, pipeline["total"], failed)
            sleep(pause(clock() - started, clock() - asked))
