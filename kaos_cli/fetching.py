"""``kaos train get``: models, code and data of a job into a folder, bit for bit."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kaos_cli import text
from kaos_cli.errors import KaosError
from kaos_cli.extract import Written, place, staging, unpack
from kaos_cli.progress import stage
from kaos_cli.session import Session
from kaos_cli.views import DONE, has_models, label
from kaos_formats.folders import clean_up
from kaos_formats.handover import Folder

BEST = "best"


def pick_model(job: Mapping[str, Any], wanted: str, failed: bool = False) -> str:
    """The model id for ``--model``: ``best``, a trial's number, an id or the start of one. ``failed``: that
    which a failed trial would have made.

    Raises KaosError (no_such_model, ambiguous) and says which there are.
    """
    done = [trial for trial in job["trials"] if trial["state"] in DONE]
    job_text = f"job {job['id'][:8]}"
    if wanted == BEST and not failed:
        return str(_best(job, done)["model"])
    if re.fullmatch(r"[0-9]{1,5}", wanted):
        found = [trial["model"] for trial in job["trials"] if trial["trial"] == int(wanted)]
    else:
        found = [trial["model"] for trial in job["trials"] if trial["model"].startswith(wanted)]
        found = [wanted] if wanted in found else found
    if len(found) > 1:
        raise KaosError(
            "ambiguous",
            f"{len(found)} models of {job_text} start with {wanted!r}",
            candidates=found[:8],
            hint="give more of its id",
        )
    if not found:
        raise KaosError(
            "no_such_model",
            f"{job_text} has no model {wanted!r}",
            hint=f"kaos train info {job['id'][:8]} shows them",
        )
    state = next(trial["state"] for trial in job["trials"] if trial["model"] == found[0])
    if failed and state != "failed":
        raise KaosError(
            "failed",
            f"the trial of model {found[0]} has not failed: it is {state}",
            hint=f"kaos train info {job['id'][:8]} shows those that failed",
        )
    if state not in DONE and not failed:
        raise KaosError(
            "failed",
            f"the trial of model {found[0]} is {state}: there is no model of it",
            hint=f"kaos train info {job['id'][:8]} shows those that are done",
        )
    return str(found[0])


def _best(job: Mapping[str, Any], done: list[dict[str, Any]]) -> dict[str, Any]:
    metric = job.get("metric")
    if not done:
        raise _no_models(job)
    if not metric:
        if len(done) == 1:
            return done[0]
        raise KaosError(
            "no_such_metric",
            f"which model of job {job['id'][:8]} is best cannot be told: its trials wrote no metrics",
            hint="write numbers to metrics.json in the output folder, or name a model with --model",
        )
    scored = [trial for trial in done if isinstance(trial["metrics"].get(metric["name"]), int | float)]
    if not scored:
        raise _no_models(job)
    sign = -1 if metric["order"] == "desc" else 1
    return min(scored, key=lambda trial: sign * trial["metrics"][metric["name"]])


def _no_models(job: Mapping[str, Any]) -> KaosError:
    return KaosError(
        "failed",
        f"job {job['id'][:8]} has no models: it is {job['state']}",
        hint=f"kaos train info {job['id'][:8]} shows why",
    )


def get(
    session: Session,
    ws: str,
    ref: str,
    model: str | None,
    code: bool,
    data: bool,
    out: Path | None,
    force: bool,
    failed: bool = False,
) -> None:
    """Fetch and write; raises KaosError (exists) rather than change a file that is there.

    ``failed``: what failed trials left, in place of models; ``model`` is one of theirs then.
    """
    # The best one comes first; for another all have to be looked at.
    job = session.client.job(ws, ref, limit=1)
    if model is not None and (model != BEST or failed or not job["metric"]):
        job = session.client.job(ws, job["id"])
    job_id = job["id"]
    target = out if out is not None else Path(f"kaos-{job_id[:8]}")
    chosen = pick_model(job, model, failed) if model is not None else None
    if not has_models(job) and not (code or data or failed):
        raise _no_models(job)
    wanted = {"model": ""} if has_models(job) and not failed else {}
    if failed:
        # Apart from models and code; a folder that was named for them alone is theirs.
        wanted["failed"] = "" if out is not None and not (code or data) else "failed"
    wanted |= {what: what for what, asked in (("code", code), ("data", data)) if asked}
    written: dict[str, Written] = {}
    with staging(target) as staged:
        for what, below in wanted.items():
            only = chosen if what in ("model", "failed") else None
            if what in ("code", "data") and (done := _export(session, ws, job_id, what, staged / below)):
                written[what] = done
                continue
            try:
                with (
                    stage(session.terminal, f"fetch {what}", in_bytes=True) as progress,
                    session.client.archive(ws, job_id, what, only) as stream,
                ):
                    written[what] = unpack(stream, staged / below, progress.advance)
            except KaosError as error:
                if error.code == "no_such_model" and chosen is None and (code or data):
                    # Code and data are the job's all the same.
                    session.terminal.say(error.message)
                    continue
                if error.code == "connection_lost":
                    # Damage that it met is known by now, and said before anything is sent.
                    with session.client.archive(ws, job_id, what, only):
                        pass
                raise
        place(staged, target, force)
    _report(session, job, target, wanted, chosen, written)


def _export(session: Session, ws: str, job_id: str, what: str, into: Path) -> Written | None:
    """Let the engine write a bundle into a new folder; None, and no folder, where that cannot be done."""
    if not session.client.hands_over:
        return None
    into.mkdir(parents=True)
    mask = os.umask(0o077)
    os.umask(mask)
    last: Mapping[str, Any] = {}
    try:
        folder = Folder.of(into.resolve())
        with stage(session.terminal, f"fetch {what}", in_bytes=True) as progress:
            for last in session.client.export(ws, job_id, what, folder, 0o666 & ~mask):
                progress.show(last["bytes"])
    except KaosError as error:
        if error.code != "no_handover":
            raise
        clean_up(into)
        return None
    return Written(last["files"], last["bytes"], (last["name"],))


def _report(
    session: Session,
    job: Mapping[str, Any],
    target: Path,
    below: Mapping[str, str],
    chosen: str | None,
    written: Mapping[str, Written],
) -> None:
    if session.terminal.json:
        session.terminal.answer_json(
            {
                "job": job["id"],
                "out": str(target.absolute()),
                "model": chosen,
                "written": {
                    what: {"files": one.files, "bytes": one.size_bytes, "names": list(one.tops)}
                    for what, one in written.items()
                },
            }
        )
        return
    for what, one in written.items():
        amount = f"{text.files(one.files)}, {text.size(one.size_bytes)}"
        if what == "failed":
            print(f"failed  {text.trials(len(one.tops))}  {amount}  → {target / below[what]}")
        elif what == "model":
            names = chosen or (one.tops[0] if len(one.tops) == 1 else f"{len(one.tops)} models")
            print(f"model   {names}  {amount}  → {target if len(one.tops) != 1 else target / one.tops[0]}")
        else:
            inputs = job.get("inputs") or {}
            bundle = inputs.get("source" if what == "code" else "data")
            print(f"{what:<6}  {label(bundle)}  {amount}  → {target / below[what]}")
