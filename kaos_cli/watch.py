"""Wait for a job: a bar for the stage that it is at, a leaderboard and an exit code when it is over.

Asking is the only way to learn how a job does, so the pause between two questions grows with the time waited
(5 %, 20 ms to 0.5 s): a trivial job is not kept waiting by its own observer, a long one is hardly asked.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from kaos_cli import text
from kaos_cli.errors import FAILED, OK, KaosError
from kaos_cli.limit import TimeLimitReached, time_limit
from kaos_cli.progress import Stage, stage
from kaos_cli.session import Session
from kaos_cli.steps import Steps
from kaos_cli.terminal import while_read

ACTIVE = frozenset({"waiting", "running"})
PAUSE_MIN_S = 0.02
PAUSE_MAX_S = 0.5
PAUSE_SHARE = 0.05
PATIENCE_S = 60.0
PASSING = frozenset({"engine_unavailable", "connection_lost", "busy"})


def exit_code(state: str) -> int:
    """0 only if every trial succeeded."""
    return OK if state == "success" else FAILED


def pause(waited_s: float, asking_s: float) -> float:
    """Seconds to wait before the next question, after ``waited_s`` in all; at least what asking takes."""
    return min(PAUSE_MAX_S, max(PAUSE_MIN_S, PAUSE_SHARE * waited_s, asking_s))


@contextmanager
def attached(
    session: Session, ws: str, jobs: Sequence[str], again: str, timeout_s: float | None
) -> Iterator[None]:
    """A block that only looks at ``jobs``: Ctrl-C and the time limit end the block, not the jobs.

    Raises KaosError (interrupted, timed_out; stopped after ``kaos down``) that names those of them that
    ``jobs`` still holds then, and how to come back: ``kaos train <again> JOB``.
    """
    try:
        with time_limit(timeout_s):
            yield
    except KeyboardInterrupt:
        raise _detached(session, ws, jobs, again, "interrupted", "detached") from None
    except KaosError as error:
        if error.code != "stopped":
            raise
        what = "the servers were stopped (kaos down)"
        raise _detached(session, ws, jobs, again, "stopped", what, " when they are started again") from None
    except TimeLimitReached:
        limit = f"not ended within {text.duration(timeout_s)}"
        raise _detached(session, ws, jobs, again, "timed_out", limit) from None


def _detached(
    session: Session, ws: str, jobs: Sequence[str], again: str, code: str, what: str, when: str = ""
) -> KaosError:
    shown, flag = [job[:8] for job in jobs], session.flag(ws)
    goes_on = f"job {shown[0]} goes on" if len(jobs) == 1 else f"jobs {', '.join(shown)} go on"
    back = f"kaos train {again} {' '.join(shown)}{flag} comes back"
    return KaosError(
        code,
        f"{what}; {goes_on}{when}",
        hint="\n".join([back, *(f"kaos train stop {job}{flag} ends it" for job in shown)]),
        jobs=list(jobs),
    )


def wait_for(
    session: Session, ws: str, job_id: str, timeout_s: float | None = None
) -> tuple[dict[str, Any], int]:
    """The finished job and the exit code; shows how it ended. Raises as ``attached`` does."""
    with attached(session, ws, [job_id], "wait", timeout_s):
        watch(session, ws, job_id)
        job = _whole(session, ws, job_id)
    return job, _ended(session, ws, job)


def wait_for_all(session: Session, ws: str, refs: Sequence[str], timeout_s: float | None) -> int:
    """Wait for each of the jobs, show how they ended; the exit code. Raises as ``attached`` does."""
    pending, ended, codes = list(refs), [], [OK]
    with attached(session, ws, pending, "wait", timeout_s):
        # All of them are there, or nothing is waited for.
        ids = [session.client.summary(ws, ref)["id"] for ref in refs]
        pending[:] = dict.fromkeys(ids)
        while pending:
            watch(session, ws, pending[0])
            job = _whole(session, ws, pending[0])
            codes.append(_ended(session, ws, job))
            ended.append(job)
            pending.pop(0)
    if session.terminal.json:
        session.terminal.answer_json({"jobs": ended})
    return max(codes)


def _whole(session: Session, ws: str, job_id: str) -> dict[str, Any]:
    """A job that has ended, with as many of its trials as are shown."""
    from kaos_cli.views import LEADERS

    return session.client.job(ws, job_id, limit=None if session.terminal.json else LEADERS)


def _ended(session: Session, ws: str, job: dict[str, Any]) -> int:
    """Show how a job ended; the exit code, which is the job's even where nobody reads that."""
    if not session.terminal.json:
        from kaos_cli.views import show_outcome

        with while_read():
            show_outcome(session, ws, job)
    return exit_code(job["state"])


def watch(session: Session, ws: str, job_id: str) -> None:
    """Return when the job has ended; meanwhile a bar shows how far it is."""
    session.terminal.flush()
    started = time.monotonic()
    seen = started
    with ExitStack() as open_bars:
        bars: dict[str, Stage] = {}
        steps = Steps(session, ws, job_id)
        while True:
            asked = time.monotonic()
            try:
                job = session.client.summary(ws, job_id)
                seen = time.monotonic()
                if job["state"] not in ACTIVE:
                    return
            except KaosError as error:
                # A backend or engine that was killed comes back by itself; the job does too.
                if error.code not in PASSING or time.monotonic() - seen > PATIENCE_S:
                    raise
                time.sleep(PAUSE_MAX_S)
                continue
            now = next((one for one in job["stages"] if one["state"] in ACTIVE), None)
            for name, bar in bars.items():
                if now is None or name != now["name"]:
                    bar.close()
            if now is not None:
                if now["name"] not in bars:
                    bars[now["name"]] = open_bars.enter_context(stage(session.terminal, now["name"]))
                step = steps.now(now["name"]) if now["state"] == "running" else None
                if step is not None:
                    bars[now["name"]].show(step.number, step.total, step.doing)
                else:
                    done = now["processed"] + now["skipped"] + now["failed"]
                    notes = [f"{now['failed']} failed"] if now["failed"] else []
                    notes += [text.printable(now["reason"])] if now["reason"] else []
                    bars[now["name"]].show(done, now["total"], ", ".join(notes))
            now_s = time.monotonic()
            time.sleep(pause(now_s - started, now_s - asked))
