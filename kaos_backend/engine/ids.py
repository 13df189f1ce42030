"""Identifiers: dashless version-4 UUIDs, for commits, commit sets, jobs and transactions alike."""

from __future__ import annotations

import re
import uuid

_ID = re.compile(r"[0-9a-f]{12}4[0-9a-f]{19}")


def new_id() -> str:
    """A fresh id: 32 lowercase hex digits, the 13th of them ``4``."""
    return uuid.uuid4().hex


def is_id(text: str) -> bool:
    """Whether `text` has the form of an id (such a string never names a branch)."""
    return _ID.fullmatch(text) is not None
