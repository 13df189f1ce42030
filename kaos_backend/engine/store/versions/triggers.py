"""Triggers: branches that follow others when enough has changed, or when it is time (reference, 5.3)."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice, takewhile

from kaos_backend.engine import cronspec
from kaos_backend.engine.errors import Unknown
from kaos_backend.engine.store.model import BranchKey
from kaos_backend.engine.store.versions import history, refs
from kaos_backend.engine.store.versions.state import WriteState

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?\s*", re.IGNORECASE)


def size_of(text: str) -> int:
    """Bytes of a size text such as ``10M`` or ``1.5 GiB`` (a bare number is bytes).

    Raises:
        Unknown: it is none.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise Unknown(f"trigger size {text!r} is no size: write it like 500K, 10MB or 1GiB")
    power = " kmgtp".index(match[2].lower() or " ")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def check(state: WriteState, key: BranchKey, repo_id: int, trigger: bytes) -> None:
    """Refuse triggers that lead back to their branch, and sizes that are none."""
    spec = json.loads(trigger)
    if spec.get("size"):
        size_of(str(spec["size"]))
    if spec.get("cron_spec") and any(spec.get(name) for name in ("rate_limit_spec", "size", "commits")):
        raise Unknown(f"trigger of branch {key}: cron_spec cannot be combined with other conditions")
    for condition in ("cron_spec", "rate_limit_spec"):
        try:
            cronspec.parse(str(spec.get(condition) or "@never"))
        except ValueError as error:
            raise Unknown(f"trigger of branch {key}: {condition}: {error}") from None
    source, seen = str(spec["branch"]), {key.name}
    while True:
        if source in seen:
            raise Unknown(f"triggers cannot form a loop: branch {key} would trigger itself")
        seen.add(source)
        row = state.db.execute(
            "SELECT trigger FROM branches WHERE repo_id=? AND name=?", (repo_id, source)
        ).fetchone()
        if row is None or row["trigger"] is None:
            return
        source = str(json.loads(row["trigger"])["branch"])


def fire(state: WriteState, commit_id: int) -> None:
    """Move the branches whose trigger on the finished commit's branch is satisfied to that commit."""
    db = state.db
    row = db.execute("SELECT * FROM commits WHERE id=?", (commit_id,)).fetchone()
    sources = {r[0] for r in db.execute("SELECT name FROM branches WHERE head_id=?", (commit_id,))}
    sources.add(row["branch"])
    candidates = db.execute(
        "SELECT * FROM branches WHERE repo_id=? AND trigger IS NOT NULL ORDER BY id", (row["repo_id"],)
    ).fetchall()
    fired = True
    while fired:
        fired = False
        for branch in candidates:
            trigger = json.loads(branch["trigger"])
            if trigger["branch"] not in sources or branch["name"] in sources:
                continue
            if _satisfied(db, trigger, branch, commit_id):
                state.set_head(branch["repo_id"], branch["name"], branch["id"], commit_id)
                db.execute("UPDATE branches SET triggered_id=? WHERE id=?", (commit_id, branch["id"]))
                sources.add(branch["name"])
                fired = True


def fire_by_time(state: WriteState, key: BranchKey) -> None:
    """Move a branch with a trigger to the last good commit of the branch that it follows."""
    db = state.db
    row = refs.branch_row(db, key)
    if row is None or row["trigger"] is None:
        return
    source = refs.branch_row(db, BranchKey(key.repo, str(json.loads(row["trigger"])["branch"])))
    if source is None:
        return
    for id_ in history.ancestors(db, source["head_id"]):
        commit = history.commit_by_id(db, id_)
        if commit.finished and not commit.error:
            if id_ != row["head_id"]:
                state.set_head(row["repo_id"], row["name"], row["id"], id_)
                db.execute("UPDATE branches SET triggered_id=? WHERE id=?", (id_, row["id"]))
            return


def _satisfied(
    db: sqlite3.Connection, trigger: Mapping[str, object], branch: sqlite3.Row, commit_id: int
) -> bool:
    last = branch["triggered_id"]
    answers = []
    if trigger.get("commits"):
        wanted = int(str(trigger["commits"]))
        since = takewhile(lambda ancestor: ancestor != last, history.ancestors(db, commit_id))
        # No further back than it takes to tell: the past may be long.
        answers.append(len(list(islice(since, wanted))) >= wanted)
    if trigger.get("size"):
        now = db.execute("SELECT size_bytes FROM commits WHERE id=?", (commit_id,)).fetchone()[0] or 0
        row = db.execute("SELECT size_bytes FROM commits WHERE id=?", (last,)).fetchone()
        answers.append(now - ((row[0] or 0) if row else 0) >= size_of(str(trigger["size"])))
    if trigger.get("rate_limit_spec"):
        times = [
            datetime.fromtimestamp(
                (db.execute("SELECT finishing_us FROM commits WHERE id=?", (id_,)).fetchone()[0] or 0) / 1e6,
                UTC,
            )
            for id_ in (branch["head_id"], commit_id)
        ]
        allowed = cronspec.parse(str(trigger["rate_limit_spec"]))(times[0])
        answers.append(allowed is not None and allowed <= times[1])
    if not answers:
        return False
    return all(answers) if trigger.get("all") else any(answers)
