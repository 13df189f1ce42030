"""What the services stream, a JSON object per line; whole answers are ``views``.

The field names are the contract with the CLI (docs/api.md).
"""

from __future__ import annotations

from typing import Literal

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
    """One line of the answer to a bundle that is handed over: bytes ``read_bytes`` since the last one, and
    ``hashes`` of the next of the files listed, 64 hex digits each; or the ``bundle``, the ``end``.
    """

    read_bytes: int = 0
    hashes: str = ""
    bundle: UploadedBundle | None = None
    end: bool = False


class CollectProgress(View):
    """``stage``: mark, wait, sweep, repack or compact; ``done`` of ``total`` of whatever it goes through."""

    stage: str
    done: int
    total: int


class StoredImage(View):
    """``kind``: image, environment or layer; ``images`` are those that need it."""

    kind: str
    name: str
    bytes: int
    images: list[str]


class CollectEnd(View):
    """What went, or would go; ``bytes`` is all that the disk gets back, about as much before it happens."""

    objects: int
    object_bytes: int
    directories: int
    packs: int
    freed_bytes: int
    database_bytes: int
    images: list[StoredImage]
    logs: int
    log_bytes: int
    inputs: int
    input_bytes: int
    bytes: int
    dry_run: bool


class CollectLine(Answer):
    """One line of the answer to a collection: ``progress``, and ``end`` (or an error) the last."""

    progress: CollectProgress | None = None
    end: CollectEnd | None = None


class RemoteFinding(View):
    """A line of a manifest whose file is not known to be as it was fetched. ``state``: changed, gone, or
    unknown, where ``why`` says why.
    """

    url: str
    path: str
    rev: str
    state: Literal["changed", "gone", "unknown"]
    why: str


class RemoteEnd(View):
    """How many of the lines are how, and what was made of the ``data`` that was fetched for a manifest."""

    name: str
    data: str
    manifest: str
    same: int
    changed: int
    gone: int
    unknown: int
    jobs: list[str]
    models: list[str]


class RemoteLine(Answer):
    """One line of the answer to whether remote data has changed: what is waited for, that servers are being
    asked, a ``finding``; ``end`` (or an error) the last. Or nothing, which says that all is well.
    """

    waiting: str = ""
    running: bool = False
    finding: RemoteFinding | None = None
    end: RemoteEnd | None = None


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
