"""Which job a user means: a full id, a unique prefix, a row of the last listing, or ``last``.

A listing that a person saw is remembered per workspace, so that a row number always means what was shown,
even when newer jobs have pushed it down since.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from kaos_cli.config import Home
from kaos_cli.errors import KaosError
from kaos_formats.files import write_atomically

LAST = "last"
_JOBS = "jobs"
ROW_DIGITS = 5
"""Digits alone, at most so many, are a row number; job ids are 32 hexadecimal digits."""


def is_row(token: str) -> bool:
    return token.isascii() and token.isdigit() and len(token) <= ROW_DIGITS


def job_ref(home: Home, ws: str, positional: str | None, job: str | None, row: int | None) -> str:
    """The reference that the backend understands. Raises KaosError for two at once and for no such row."""
    given = [token for token in (positional, job, None if row is None else str(row)) if token is not None]
    if len(given) > 1:
        raise KaosError(
            "usage", f"several jobs were named: {', '.join(given)}", hint="name one: JOB, -j JOB or -i ROW"
        )
    if not given:
        return LAST
    token = given[0].strip()
    if row is not None or (positional is not None and is_row(token)) or (job is not None and is_row(token)):
        return _row(home, ws, int(token), token if row is None and len(token) > 3 else None)
    if token == LAST:
        return LAST
    if not token or any(c not in "0123456789abcdef" for c in token.lower()):
        raise KaosError(
            "no_such_job",
            f"{token!r} is no job: an id, the start of one, a row number or 'last'",
            hint="kaos train list shows the jobs",
        )
    return token.lower()


def row_or_id(home: Home, ws: str, token: str, kind: str) -> str:
    """The version of a kind that a row number or (the start of) an id names. Raises KaosError."""
    token = token.strip().lower()
    if is_row(token):
        return _row(home, ws, int(token), token if len(token) > 3 else None, kind)
    if not token or any(c not in "0123456789abcdef" for c in token):
        raise KaosError(
            "no_bundle",
            f"{token!r} is no version of the {kind}: an id, the start of one, or a row number",
            hint=f"kaos {kind} list shows them",
        )
    return token


def remember(home: Home, ws: str, ids: Sequence[str], kind: str = _JOBS) -> None:
    """Keep the ids of a listing that was shown, in its order."""
    home.create()
    path = _path(home, ws, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({kind: list(ids)}).encode(), durable=False)


def _row(home: Home, ws: str, row: int, prefix: str | None, kind: str = _JOBS) -> str:
    """The id in that row; where there is no such row, `prefix`, which may be the start of an id."""
    try:
        shown = json.loads(_path(home, ws, kind).read_bytes())[kind]
    except (OSError, ValueError, KeyError, TypeError):
        shown = []
    if 0 <= row < len(shown):
        return str(shown[row])
    if prefix is not None:
        return prefix
    last = (
        f"the last listing of workspace {ws} had rows 0 to {len(shown) - 1}"
        if shown
        else "nothing was listed yet"
    )
    code, group = ("no_such_job", "train") if kind == _JOBS else ("no_bundle", kind)
    raise KaosError(code, f"no row {row}: {last}", hint=f"kaos {group} list -w {ws}")


def _path(home: Home, ws: str, kind: str) -> Path:
    return home.listings() / (f"{ws}.json" if kind == _JOBS else f"{ws}.{kind}.json")
