"""What the services stream, a JSON object per line; whole answers are ``views``.

The field names are the contract with the CLI (docs/api.md).
"""

from __future__ import annotations

from kaos_backend.services.views import Answer, UploadedBundle, View


class ForegroundLine(Answer):
    """One line of a command in the foreground: its ``session`` first, then what is waited for, that it runs,
    a remark, bytes that it ``printed``, a piece of its ``output`` folder (a tar in zstd), and the end; or
    nothing, which says that all is well. ``stage`` where it is not the trial's.
    """

    session: str = ""
    stage: str = ""
    waiting: str = ""
    running: bool = False
    note: str = ""
    printed: bytes = b""
    output: bytes = b""
    end: bool = False
    code: int | None = None
    reason: str = ""


class TakenLine(Answer):
    """One line of the answer to a bundle that is handed over: bytes ``read_bytes`` since the last one; or the
    ``hashes`` of the files listed, 64 hex digits each, in the order of the list; or the ``bundle``, the
    ``end``.
    """

    read_bytes: int = 0
    hashes: str = ""
    bundle: UploadedBundle | None = None
    end: bool = False


class CheckProgress(View):
    objects: int
    objects_total: int
    bytes: int
    bytes_total: int


class CheckFinding(View):
    """``workspace``, ``repo``, ``commit`` and ``path`` are empty where no commit speaks of what is wrong."""

    workspace: str
    repo: str
    commit: str
    path: str
    object: str
    what: str
    repaired: bool


class CheckEnd(View):
    """``damaged`` counts the findings, ``repaired`` those that are whole again."""

    objects: int
    bytes: int
    damaged: int
    repaired: int


class CheckLine(Answer):
    """One line of the answer to a check: one of these, ``end`` (or an error) the last."""

    progress: CheckProgress | None = None
    finding: CheckFinding | None = None
    end: CheckEnd | None = None
