"""Bring a bundle to the backend: nothing if it is there, else only the files whose content it lacks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from kaos_cli import text
from kaos_cli.bundle import Bundle, Entry, GrowingTree, Listed, hashed
from kaos_cli.client import KaosClient
from kaos_cli.errors import KaosError
from kaos_cli.index import Hashes
from kaos_cli.progress import stage
from kaos_cli.room import refuse_what_cannot_fit
from kaos_cli.terminal import Terminal
from kaos_formats import handover
from kaos_formats.handover import File, Folder
from kaos_formats.tree import bundle_id, content_hashes

# Waits before an upload that broke off goes on, while it gets nowhere.
PAUSES_S = (0.5, 2.0, 5.0, 10.0)
BROKEN_OFF = frozenset({"connection_lost", "backend_unavailable", "engine_unavailable", "stale_offset"})
_AT_A_TIME = 20_000


@dataclass(frozen=True, slots=True)
class Sent:
    """What an upload carried. ``known``: the backend had the whole bundle and nothing was sent."""

    bundle: Bundle
    new_files: int
    new_bytes: int
    known: bool

    def describe(self) -> str:
        total = f"{text.files(self.bundle.files)}, {text.size(self.bundle.size_bytes)}"
        if not self.new_files:
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


def take(client: KaosClient, ws: str, listed: Listed, terminal: Terminal) -> Sent | None:
    """Hand a folder over, so that the engine reads what is new where it lies; None where that cannot be done.

    Raises KaosError: changed for a file that changes meanwhile; nothing is kept then.
    """
    if listed.generated is not None or not client.hands_over:
        return None
    try:
        try:
            return _take(client, ws, listed, terminal, listed.base)
        except KaosError as error:
            if error.code != "stale_base":
                raise
            return _take(client, ws, listed, terminal, None)
    except KaosError as error:
        if error.code == "no_handover":
            return None
        raise


def _take(client: KaosClient, ws: str, listed: Listed, terminal: Terminal, base: str | None) -> Sent | None:
    """``base``: the bundle of which only what has changed is listed."""
    try:
        head = msgspec.json.encode(Folder.of(listed.root)) + b"\n"
        "".join(listed.linked.values()).encode()
    except (OSError, UnicodeEncodeError):
        return None

    def lines() -> Iterator[bytes]:
        yield head
        yield from handover.lines(_files(listed)) if base is None else _changes(listed)

    total = sum(file.size for file, known in zip(listed.files, listed.known, strict=True) if not known)
    taken = bytearray()
    bundle: dict[str, Any] = {}
    with (
        stage(terminal, f"read {listed.kind}", total, in_bytes=True) as progress,
        client.take_bundle(ws, listed.kind, listed.name, lines, base) as answer,
    ):
        # Also this, all that can be done before the hashes come, while the engine reads.
        tree = GrowingTree(listed.files, None if base is None else listed.known)
        for line in answer:
            progress.advance(line.get("read_bytes", 0))
            bundle = line.get("bundle", bundle)
            hashes = bytes.fromhex(line.get("hashes", ""))
            taken += hashes
            tree.add(Hashes(hashes))
    hashes_of_all: Sequence[bytes] = Hashes(taken)
    if base is not None:
        new = iter(hashes_of_all)
        hashes_of_all = [known or next(new) for known in listed.known]
    made = listed.with_hashes(hashes_of_all, tree.finish())
    if made.id != bundle["id"]:
        raise KaosError("internal", f"{listed.root} became bundle {bundle['id']}, and should be {made.id}")
    return Sent(made, bundle["new_files"], bundle["new_bytes"], bundle["known"])


def _files(listed: Listed) -> Iterator[File]:
    for file, known in zip(listed.files, listed.known, strict=True):
        times = file.mtime_ns, file.ctime_ns
        source = listed.linked.get(file.path, "")
        yield File(file.path, file.size, *times, file.inode, file.executable, known.hex(), source)


def _changes(listed: Listed) -> Iterator[bytes]:
    """The lines of what is not as in the ``base``."""
    yield handover.paths_line(sorted(listed.gone))
    yield from handover.lines(file for file in _files(listed) if not file.hash)


def missing(bundle: Bundle, base_tree: bytes | None) -> Sequence[Entry]:
    """The files of ``bundle`` whose content is nowhere in the bundle of ``base_tree``."""
    if base_tree is None:
        return bundle.entries
    known = content_hashes(base_tree)
    return [entry for entry in bundle.entries if entry.hash not in known]


def send(client: KaosClient, ws: str, listed: Listed, terminal: Terminal) -> Sent:
    """Make sure that the backend has the bundle of a folder; raises KaosError.

    What is there already is neither read nor sent; else the engine reads it where it lies, or it is sent.
    """
    bundle = None
    if listed.complete:
        bundle = listed.as_known()
        if client.bundle(ws, bundle.kind, bundle.id) is not None:
            return Sent(bundle, 0, 0, known=True)
    made = bundle
    refuse_what_cannot_fit(client, listed.kind, listed.size_bytes, lambda: made or hashed(listed))
    try:
        taken = take(client, ws, listed, terminal)
    except KaosError as error:
        # A server was killed, and what it had taken went with it.
        if error.code not in ("connection_lost", "engine_unavailable"):
            raise
        taken = take(client, ws, listed, terminal)
    if taken is not None:
        return taken
    if bundle is None:
        with stage(terminal, f"read {listed.kind}", in_bytes=True) as progress:
            bundle = hashed(listed, progress.advance)
        if client.bundle(ws, bundle.kind, bundle.id) is not None:
            return Sent(bundle, 0, 0, known=True)
    return _Sending(client, ws, bundle, terminal).run()


class _Sending:
    """One bundle on its way over a network, in as many tries as it takes while each gets further."""

    def __init__(self, client: KaosClient, ws: str, bundle: Bundle, terminal: Terminal) -> None:
        self._client = client
        self._ws = ws
        self._bundle = bundle
        self._terminal = terminal
        self._first: Sent | None = None
        self._left_bytes: int | None = None

    def run(self) -> Sent:
        tries, stale = 0, False
        while True:
            left_bytes = self._left_bytes
            try:
                return self._try()
            except KaosError as error:
                if error.code == "stale_base" and not stale:
                    # Somebody deployed in between; build on theirs.
                    stale = True
                    continue
                if error.code not in BROKEN_OFF:
                    raise
                tries = 0 if self._left_bytes != left_bytes else tries + 1
                if tries >= len(PAUSES_S):
                    error.hint = "the same command sends only what has not arrived yet"
                    raise
                self._terminal.say(f"{error.message}: trying to go on")
            time.sleep(PAUSES_S[tries])

    def _try(self) -> Sent:
        from kaos_cli.pack import pack

        client, ws, bundle = self._client, self._ws, self._bundle
        base_tree = client.head_tree(ws, bundle.kind)
        new, begun = self._wanted(missing(bundle, base_tree))
        # One file of each content travels.
        entries = list({entry.hash: entry for entry in reversed(new)}.values())[::-1]
        self._left_bytes = sum(entry.file.size - begun.get(entry.hash, 0) for entry in entries)
        sent = Sent(bundle, len(new), sum(entry.file.size for entry in new), known=False)
        self._first = self._first or sent
        base = None if base_tree is None else bundle_id(base_tree)
        with stage(self._terminal, f"send {bundle.kind}", self._left_bytes, in_bytes=True) as progress:
            client.put_bundle(
                ws,
                bundle.kind,
                bundle.id,
                bundle.name,
                base,
                lambda: pack(bundle, entries, progress.advance, begun),
            )
        return self._first

    def _wanted(self, entries: Sequence[Entry]) -> tuple[Sequence[Entry], dict[str, int]]:
        """Those whose content is nowhere at the backend, and how many bytes of it have come, by hash."""
        sizes = list({entry.hash: entry.file.size for entry in entries}.items())
        wanted: set[str] = set()
        begun: dict[str, int] = {}
        for at in range(0, len(sizes), _AT_A_TIME):
            part = dict(sizes[at : at + _AT_A_TIME])
            lacking, halves = self._client.missing(self._ws, self._bundle.kind, self._bundle.id, part)
            wanted.update(lacking)
            begun |= halves
        return [entry for entry in entries if entry.hash in wanted], begun
