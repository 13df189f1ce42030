"""How the files of an upload come to lie in its open commit: what is there already, and how large ones go on
where they broke off.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import blake3

from kaos_backend.domain.models import AddFile, DeleteFile
from kaos_backend.domain.uploads import Layout
from kaos_backend.errors import InvalidBundle, StaleOffset
from kaos_backend.pachd.port import Pachd
from kaos_backend.services import contents
from kaos_backend.services.batches import CUT, BrokenOff, Step
from kaos_formats import names
from kaos_formats.tree import TreeEntry

# Files from this size on go on within when they broke off; of a smaller one it costs no more than that.
LARGE_BYTES = 16 * 1024 * 1024


class Arrival:
    """Into an empty commit and in one go. Others know more.

    ``whole_files``: a commit never has a part of a file. ``is_begun``: the commit has the bundle's tree and
    files already, those at the stored paths ``there`` whole.
    """

    whole_files = True
    is_begun = False
    there: Collection[str] = ()

    def find(self, _sizes: Mapping[str, int]) -> Mapping[str, str]:
        """See ``contents.find``."""
        return {}

    def take(self, path: str, entry: TreeEntry, offset: int, pieces: Iterator[bytes]) -> Iterator[Step]:
        """The changes that put a file at ``path``, given what follows ``offset``.

        Raises InvalidBundle if it is not what the tree says, StaleOffset if what lies before is not there.
        """
        if offset:
            raise stale(entry, 0)
        yield from _added(path, entry, blake3.blake3(), pieces)

    def verify(self) -> None:
        """When all is stored: raises InvalidBundle if that is not the bundle."""


class EmbeddedArrival(Arrival):
    """At the embedded engine, which finds contents wherever they are, and keeps what has come of large ones
    by their hashes.
    """

    def __init__(self, pachd: Pachd) -> None:
        self._pachd = pachd

    def find(self, sizes: Mapping[str, int]) -> Mapping[str, str]:
        return contents.find(self._pachd, sizes).stored

    def take(self, path: str, entry: TreeEntry, offset: int, pieces: Iterator[bytes]) -> Iterator[Step]:
        if entry.size < LARGE_BYTES:
            yield from super().take(path, entry, offset, pieces)
            return
        # It may take hours, and a batch has to wait for nothing.
        yield CUT
        broken: list[BrokenOff] = []
        name = bytes.fromhex(entry.hash)
        received = self._pachd.receive(name, entry.size, offset, _until_broken(pieces, broken))
        if broken:
            raise broken[0]
        if received.differs:
            raise _other(entry)
        if not received.file_set:
            raise stale(entry, received.held)
        yield contents.copy({entry.hash: received.file_set}, entry.hash, path)
        yield CUT


class ElsewhereArrival(Arrival):
    """At another Pachyderm, where the open commit itself has what came before, also the beginning of a file.

    Appending is cheap there; nothing of it ends by the clock, as file sets do.
    """

    whole_files = False

    def __init__(
        self, pachd: Pachd, workspace: str, repo: str, commit_id: str, layout: Layout, *, is_begun: bool
    ) -> None:
        self._pachd = pachd
        self._commit = (workspace, repo, commit_id)
        self._layout = layout
        self._folder = names.bundle_dir(layout.tree.id)
        self.is_begun = is_begun
        self._sizes = self._look() if is_begun else {}
        self.there = {path for path, entry in layout.entries.items() if self._sizes.get(path) == entry.size}

    @property
    def stored(self) -> set[str]:
        """The hashes of the files that are there."""
        return {self._layout.entries[path].hash for path in self.there}

    @property
    def begun(self) -> dict[str, int]:
        """How many bytes there are of files that broke off within, by their hashes."""
        entries = self._layout.entries
        return {
            entries[path].hash: size
            for path, size in self._sizes.items()
            if path in entries and 0 < size < entries[path].size
        }

    def take(self, path: str, entry: TreeEntry, offset: int, pieces: Iterator[bytes]) -> Iterator[Step]:
        digest = blake3.blake3()
        held = self._sizes.get(path.removeprefix(f"{self._folder}/"))
        if offset:
            if offset != held:
                raise stale(entry, held or 0)
            for piece in self._pachd.read_file(*self._commit, path):
                digest.update(piece)
        elif held is not None:
            yield DeleteFile(path)
        yield from _added(path, entry, digest, pieces, is_new=not offset)

    def verify(self) -> None:
        # A stream of which nobody heard whether it was stored may have been so later, and a file be there
        # twice.
        if not self.is_begun:
            return
        found = self._look()
        for path, entry in self._layout.entries.items():
            if found.get(path) != entry.size:
                raise InvalidBundle(
                    f"{entry.path!r} has {found.get(path, 0)} bytes where it was stored, not {entry.size}",
                    hint="deploy again: it is sent anew",
                    path=entry.path,
                )

    def _look(self) -> Mapping[str, int]:
        return self._pachd.sizes(*self._commit, self._folder)


def stale(entry: TreeEntry, held: int) -> StaleOffset:
    return StaleOffset(
        f"of {entry.path!r} {held} bytes are there",
        hint="send what follows these",
        path=entry.path,
        held=held,
    )


def _added(
    path: str, entry: TreeEntry, digest: Any, pieces: Iterator[bytes], *, is_new: bool = True
) -> Iterator[AddFile]:
    """A file as it comes; ``digest`` has what lies before."""
    if entry.size == 0 and is_new:
        yield AddFile(path, b"")
    for piece in pieces:
        digest.update(piece)
        yield AddFile(path, piece)
    if digest.hexdigest() != entry.hash:
        raise _other(entry)


def _other(entry: TreeEntry) -> InvalidBundle:
    return InvalidBundle(
        f"the content of {entry.path!r} is not what the file list says",
        hint="deploy again; the file may have changed while it was being read",
        path=entry.path,
    )


def _until_broken(pieces: Iterator[bytes], broken: list[BrokenOff]) -> Iterator[bytes]:
    """So that all that came is kept, what breaks off looks like an end to whoever stores it."""
    try:
        yield from pieces
    except BrokenOff as error:
        broken.append(error)
