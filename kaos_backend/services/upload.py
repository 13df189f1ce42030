"""From an uploaded archive to the changes of one commit: unpacked, checked and hashed as it streams by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, cast

import zstandard

from kaos_backend.domain import uploads
from kaos_backend.domain.models import AddFile, CopyFile, DeleteFile
from kaos_backend.errors import InvalidBundle
from kaos_backend.services import contents
from kaos_backend.services.arrivals import Arrival
from kaos_backend.services.batches import CUT, BrokenOff, Step
from kaos_formats import names
from kaos_formats.stored import MAP_FILE
from kaos_formats.tar import CHUNK, Member, Source, TarError, TarReader
from kaos_formats.tree import MAX_TREE_BYTES, TREE_FILE, Tree, TreeEntry, parse_tree

# What every decoder of zstd supports (RFC 8878, 3.1.1.1.2); a frame that asks for more wants our memory.
MAX_WINDOW_BYTES = 8 * 1024 * 1024
MAX_TRAILING_BYTES = 1024 * 1024
_READ_BYTES = 1024 * 1024
# What is lost at most when the archive breaks off.
_PIECE_BYTES = 1024 * 1024


class BundleUpload:
    """One archive (tar in zstd): first its tree, then the files that the base does not have.

    ``tree()`` must be called first, then ``operations`` once. Both raise InvalidBundle for anything that is
    not exactly what the tree says, and BrokenOff when the archive ends too early because its sender has gone;
    nothing is kept of the content but one chunk at a time. ``new_files`` have come whole so far, and
    ``new_bytes`` of content.
    """

    def __init__(self, body: Source, bundle_id: str) -> None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        self._source = decompressor.stream_reader(
            cast(IO[bytes], body), read_size=_READ_BYTES, read_across_frames=True
        )
        self._reader = TarReader(self._source)
        self._members = iter(self._reader)
        self._bundle_id = bundle_id
        self.new_files = 0
        self.new_bytes = 0

    def tree(self) -> Tree:
        """The tree at the head of the archive, whose id must be the one announced."""
        member = self._next()
        if member is None or member.name != TREE_FILE or member.kind != "file":
            raise InvalidBundle(f"the archive does not begin with {TREE_FILE}")
        if member.size > MAX_TREE_BYTES:
            raise InvalidBundle(
                f"the bundle's file list has {member.size} bytes",
                hint="leave files out with .kaosignore, or pack many small files into fewer big ones",
            )
        tree = parse_tree(b"".join(self._payload()))
        if tree.id != self._bundle_id:
            raise InvalidBundle(f"the archive holds bundle {tree.id}, not {self._bundle_id}")
        self.new_bytes = 0
        return tree

    def operations(
        self,
        repo: str,
        tree: Tree,
        base: Tree | None,
        base_commit: str,
        commit_id: str = "",
        arrival: Arrival | None = None,
    ) -> Iterator[Step]:
        """The changes that put the bundle into the open commit of ``repo``; ``base`` lies in ``base_commit``.
        ``arrival`` knows what is there already.

        When BrokenOff is raised, they have put those files there that have come whole.
        """
        folder = names.bundle_dir(tree.id)
        layout = uploads.Layout(tree)
        arrival = arrival or Arrival()
        base_layout = uploads.Layout(base) if base is not None else None
        plan = uploads.plan_upload(layout, base_layout, is_begun=arrival.is_begun)
        if plan.copy_all and base is not None:
            yield CopyFile(f"{folder}/", repo, base_commit, f"{names.bundle_dir(base.id)}/")
            for path in plan.removed:
                yield DeleteFile(f"{folder}/{path}")
        if layout.map_text is not None and not arrival.is_begun:
            for start in range(0, len(layout.map_text), CHUNK):
                yield AddFile(f"{folder}/{MAP_FILE}", layout.map_text[start : start + CHUNK])
        # Before all that is waited for: what was found is only sure to stay for some minutes.
        lacking = {path: one for path, one in layout.entries.items() if one.hash not in plan.sources}
        found = arrival.find({one.hash: one.size for one in lacking.values()}) if lacking else {}
        stored = {path for path, one in lacking.items() if one.hash in found}
        for path in stored:
            yield contents.copy(found, lacking[path].hash, f"{folder}/{path}")
        for start in range(0, 0 if arrival.is_begun else len(tree.text), CHUNK):
            yield AddFile(names.tree_path(tree.id), tree.text[start : start + CHUNK])
        expected = tree.by_path()
        received: set[str] = set()
        under_way = ""
        try:
            while (member := self._next()) is not None:
                entry = _expected(member, expected)
                path = layout.path(entry)
                if path in received:
                    raise InvalidBundle(f"the archive has {member.name!r} twice", path=member.name)
                received.add(path)
                under_way = f"{folder}/{path}"
                if path in plan.kept or path in stored:
                    yield DeleteFile(under_way)
                yield from arrival.take(under_way, entry, member.offset, self._payload())
                under_way = ""
                self.new_files += 1
            self._end()
        except BrokenOff:
            if under_way and arrival.whole_files:
                yield DeleteFile(under_way)
            raise
        # Raises InvalidBundle without a base, too.
        copies = uploads.copies(plan, layout, received | stored | set(arrival.there))
        if base is not None:
            for source, path in copies.of_base:
                yield CopyFile(f"{folder}/{path}", repo, base_commit, f"{names.bundle_dir(base.id)}/{source}")
        if copies.of_itself:
            yield CUT
            for source, path in copies.of_itself:
                yield CopyFile(f"{folder}/{path}", repo, commit_id, f"{folder}/{source}")
        yield CUT
        arrival.verify()

    def _next(self) -> Member | None:
        try:
            return next(self._members, None)
        except (TarError, zstandard.ZstdError) as error:
            raise _broken(error) from error

    def _payload(self) -> Iterator[bytes]:
        try:
            for piece in self._reader.payload(_PIECE_BYTES):
                self.new_bytes += len(piece)
                yield piece
        except (TarError, zstandard.ZstdError) as error:
            raise _broken(error) from error

    def _end(self) -> None:
        """Reads the archive's padding, so that a body cut off within the last frame is noticed."""
        try:
            rest = self._source.read(MAX_TRAILING_BYTES + 1)
        except zstandard.ZstdError as error:
            raise _broken(error) from error
        if len(rest) > MAX_TRAILING_BYTES or rest.strip(b"\0"):
            raise InvalidBundle("there is something behind the end of the archive")


def _expected(member: Member, expected: dict[str, TreeEntry]) -> TreeEntry:
    if member.kind != "file":
        raise InvalidBundle(
            f"{member.name!r} is a {member.kind}; a bundle holds regular files only", path=member.name
        )
    entry = expected.get(member.name)
    if entry is None:
        raise InvalidBundle(
            f"the archive has {member.name!r}, which its file list does not", path=member.name
        )
    if member.offset + member.size != entry.size:
        raise InvalidBundle(
            f"{member.name!r} has {member.offset + member.size} bytes, its file list says {entry.size}",
            hint="deploy again; the file may have changed while it was being read",
            path=member.name,
        )
    return entry


def _broken(error: Exception) -> InvalidBundle:
    return InvalidBundle(f"the upload is broken: {error}", hint="deploy again")
