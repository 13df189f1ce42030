"""``kaos data check``: whether what a manifest names is as it was when it was fetched."""

from __future__ import annotations

from typing import Any

from kaos_cli import text
from kaos_cli.errors import FAILED, OK
from kaos_cli.progress import stage
from kaos_cli.session import Session

_SHOWN = 20
_JOBS = 3
_MODELS = 6
_A_LINE = 3
_LEFT = ("changed", "gone", "unknown")


def check(session: Session, ws: str) -> int:
    """Ask the servers, and say what has changed; the exit code is 0 only if all is as it was."""
    findings: list[dict[str, Any]] = []
    end: dict[str, Any] = {}
    with stage(session.terminal, "ask") as asking:
        for line in session.client.check_data(ws):
            if found := line.get("finding"):
                findings.append({"rev": "", "why": "", **found})
            elif line.get("end"):
                end = line["end"]
            else:
                asking.show(0, None, text.printable(line.get("waiting", "")))
    if session.terminal.json:
        session.terminal.answer_json(end | {"findings": findings})
    else:
        _show(session, ws, findings, end)
    return OK if not any(end[state] for state in _LEFT) else FAILED


def _show(session: Session, ws: str, findings: list[dict[str, Any]], end: dict[str, Any]) -> None:
    for one in findings[:_SHOWN]:
        why = f": {one['why']}" if one["why"] else ""
        print(text.printable(f"{one['state']:<8} {one['path']}{why}"))
    if len(findings) > _SHOWN:
        print(f"… and {len(findings) - _SHOWN:,} more (--json has them)")
    counts = [f"{end[state]:,} {state}" for state in _LEFT if end[state]]
    lines = end["same"] + sum(end[state] for state in _LEFT)
    told = ", ".join(counts) if counts else "nothing has changed"
    print(text.printable(f"data    {end['name']}:{end['data'][:6]}  {text.lines(lines)}: {told}"))
    if counts and end["models"]:
        models, jobs = end["models"], end["jobs"]
        more = f" and {len(jobs) - _JOBS:,} more" if len(jobs) > _JOBS else ""
        print(f"models  {len(models):,} of job {', '.join(job[:8] for job in jobs[:_JOBS])}{more}:")
        for at in range(0, min(len(models), _MODELS), _A_LINE):
            print(f"        {' '.join(models[at : at + _A_LINE])}")
        if len(models) > _MODELS:
            print(f"        … and {len(models) - _MODELS:,} more (--json has them)")
    if end["changed"] or end["gone"]:
        session.terminal.hint(
            f"kaos train deploy --refresh{session.flag(ws)} fetches what has changed, as a new version"
        )
