"""Commit descriptions: who deployed what, when, as JSON in the one place where Pachyderm keeps a reason.
Pure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import msgspec

from kaos_formats import loglines

Kind = Literal["source", "data", "manifest", "hyper", "staging"]

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Description:
    """What a commit of ours says about itself.

    ``kind`` "staging" marks an upload that waits for its deploy; the others are deployed inputs. ``files``
    and ``bytes`` count a bundle, ``trials`` and ``grid`` (as given) describe hyperparameters. ``staging`` is
    the id of the commit that holds the content of a deployed bundle until its own commit has it. ``owner``
    is the backend that opened the commit, and that finishes it or cleans up after itself ("": not told).
    ``refresh`` tells the fetches of one manifest apart ("": the first one).
    """

    kind: Kind
    id: str
    name: str = ""
    author: str = ""
    created: str = ""
    files: int = 0
    bytes: int = 0
    staging: str = ""
    trials: int = 0
    grid: dict[str, Any] | None = None
    owner: str = ""
    refresh: str = ""

    def to_json(self) -> str:
        value: dict[str, Any] = {"kaos": _FORMAT, "kind": self.kind, "id": self.id}
        if self.kind == "hyper":
            value |= {
                "author": self.author,
                "created": self.created,
                "trials": self.trials,
                "axes": self.grid or {},
            }
        else:
            value |= {"name": self.name, "author": self.author, "created": self.created}
            value |= {"files": self.files, "bytes": self.bytes}
            if self.staging:
                value["staging"] = self.staging
        if self.refresh:
            value["refresh"] = self.refresh
        if self.owner:
            value["owner"] = self.owner
        return json.dumps(value, separators=(",", ":"))


class _Wire(msgspec.Struct):
    kaos: int
    kind: Kind
    id: str
    name: str = ""
    author: str = ""
    created: str = ""
    files: int = 0
    bytes: int = 0
    staging: str = ""
    trials: int = 0
    axes: dict[str, Any] = msgspec.field(default_factory=dict)
    owner: str = ""
    refresh: str = ""


_DECODER = msgspec.json.Decoder(_Wire)


def parse(text: str) -> Description | None:
    """The description in ``text``, or None if the commit is not one of ours."""
    if not text.startswith("{"):
        return None
    try:
        wire = _DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None
    if wire.kaos != _FORMAT:
        return None
    return Description(
        kind=wire.kind, id=wire.id, name=wire.name, author=wire.author, created=wire.created,
        files=wire.files, bytes=wire.bytes, staging=wire.staging, trials=wire.trials,
        grid=wire.axes if wire.kind == "hyper" else None, owner=wire.owner, refresh=wire.refresh,
    )  # fmt: skip


def rfc3339(moment: datetime | None) -> str | None:
    """``moment`` as RFC 3339 in UTC with microseconds, None for None."""
    return None if moment is None else loglines.rfc3339(moment)
