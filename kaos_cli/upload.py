"""Bring a bundle to the backend: nothing if it is there, else only the files that the current one lacks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from kaos_cli import text
from kaos_cli.bundle import Bundle, Entry
from kaos_cli.client import KaosClient
from kaos_cli.errors import KaosError
from kaos_cli.progress import stage
from kaos_cli.room import refuse_what_cannot_fit
from kaos_cli.terminal import Terminal
from kaos_formats.tree import bundle_id, content_hashes


@dataclass(frozen=True, slots=True)
class Sent:
    """What an upload carried. ``known``: the backend had the whole bundle and nothing was sent."""

    bundle: Bundle
    new_files: int
    new_bytes: int
    known: bool

    def describe(self) -> str:
        total = f"{text.files(self.bundle.files)}, {text.size(self.bundle.size_bytes)}"
        if self.known:
            return f"{total}, nothing new to send"
        if self.new_files == self.bundle.files:
            return f"{total}, all new"
        return f"{total}, {self.new_files:,} new ({text.size(self.new_bytes)})"

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.bundle.id,
            "name": self.bundle.name,
            "files": self.bundle.files,
            "bytes": self.bundle.size_bytes,
            "new_files": self.new_files,
            "new_bytes": self.new_bytes,
            "ignored": list(self.bundle.ignored),
            **({"dockerfile": asdict(self.bundle.generated)} if self.bundle.generated else {}),
        }


def missing(bundle: Bundle, base_tree: bytes | None) -> tuple[Entry, ...]:
    """The files of ``bundle`` whose content is nowhere in the bundle of ``base_tree``."""
    if base_tree is None:
        return bundle.entries
    known = content_hashes(base_tree)
    return tuple(entry for entry in bundle.entries if entry.hash not in known)


def send(client: KaosClient, ws: str, bundle: Bundle, terminal: Terminal) -> Sent:
    """Make sure that the backend has ``bundle``; raises KaosError."""
    if client.bundle(ws, bundle.kind, bundle.id) is not None:
        return Sent(bundle, 0, 0, known=True)
    refuse_what_cannot_fit(client, bundle.kind, bundle.size_bytes, lambda: bundle)
    try:
        return _put(client, ws, bundle, terminal)
    except KaosError as error:
        if error.code != "stale_base":
            raise
    # Somebody deployed in between; build on theirs.
    return _put(client, ws, bundle, terminal)


def _put(client: KaosClient, ws: str, bundle: Bundle, terminal: Terminal) -> Sent:
    from kaos_cli.pack import pack

    base_tree = client.head_tree(ws, bundle.kind)
    entries = missing(bundle, base_tree)
    new_bytes = sum(entry.file.size for entry in entries)
    base = None if base_tree is None else bundle_id(base_tree)
    with stage(terminal, f"send {bundle.kind}", new_bytes, in_bytes=True) as progress:
        client.put_bundle(
            ws, bundle.kind, bundle.id, bundle.name, base, lambda: pack(bundle, entries, progress.advance)
        )
    return Sent(bundle, len(entries), new_bytes, known=False)
