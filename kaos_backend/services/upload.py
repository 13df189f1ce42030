"""From an uploaded archive to the changes of one commit: unpacked, checked and hashed as it streams by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import IO, cast

import blake3
import zstandard

from kaos_backend.domain import uploads
from kaos_backend.domain.models import AddFile, CopyFile, DeleteFile, FileOp
from kaos_backend.errors import InvalidBundle
from kaos_backend.services import contents
from kaos_backend.services.batches import BrokenOff
from kaos_formats import names
from kaos_formats.stored import MAP_FILE
from kaos_formats.tar import CHUNK, Member, Source, TarError, TarReader
from kaos_formats.tree import MAX_TREE_BYTES, TREE_FILE, Tree, TreeEntry, parse_tree

# What every decoder of zstd supports (RFC 8878, 3.1.1.1.2); a frame that asks for more wants our memory.
MAX_WINDOW_BYTES = 8 * 1024 * 1024
MAX_TRAILING_BYTES = 1024 * 1024
_READ_BYTES = 1024 * 1024


class BundleUpload:
    """One archive (tar in zstd): first its tree, then the files that the base does not have.

    ``tree()`` must be called first, then ``operations`` once. Both raise InvalidBundle for anything that is
    not exactly what the tree says, and BrokenOff when the archive ends too early because its sender has gone;
    nothing is kept of the content but one chunk at a time.
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
        return tree

    def operations(
        self,
        repo: str,
        tree: Tree,
        base: Tree | None,
        base_commit: str,
        find: Callable[[Mapping[str, int]], Mapping[str, str]] = lambda _: {},
    ) -> Iterator[FileOp]:
        """The changes that put the bundle into an empty commit of ``repo``; ``base`` lies in
        ``base_commit``. ``find``: see ``contents.find``, it is asked for what the base lacks.

        When BrokenOff is raised, they have put those files there that have come whole.
        """
        folder = names.bundle_dir(tree.id)
        layout = uploads.Layout(tree)
        plan = uploads.plan_upload(layout, uploads.Layout(base) if base is not None else None)
        if plan.copy_all and base is not None:
            yield CopyFile(f"{folder}/", repo, base_commit, f"{names.bundle_dir(base.id)}/")
            for path in plan.removed:
                yield DeleteFile(f"{folder}/{path}")
        if layout.map_text is not None:
            for start in range(0, len(layout.map_text), CHUNK):
                yield AddFile(f"{folder}/{MAP_FILE}", layout.map_text[start : start + CHUNK])
        # Before all that is waited for: what was found is only sure to stay for some minutes.
        lacking = {path: one for path, one in layout.entries.items() if one.hash not in plan.sources}
        found = find({one.hash: one.size for one in lacking.values()}) if lacking else {}
        stored = {path for path, one in lacking.items() if one.hash in found}
        for path in stored:
            yield contents.copy(found, lacking[path].hash, f"{folder}/{path}")
        for start in range(0, len(tree.text), CHUNK):
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
                yield from self._file(under_way, entry)
                under_way = ""
            self._end()
        except BrokenOff:
            if under_way:
                yield DeleteFile(under_way)
            raise
        # Raises InvalidBundle without a base, too.
        copied = uploads.from_base(plan, layout, received | stored)
        if base is not None:
            for source, path in copied:
                yield CopyFile(f"{folder}/{path}", repo, base_commit, f"{names.bundle_dir(base.id)}/{source}")

    def _file(self, path: str, entry: TreeEntry) -> Iterator[FileOp]:
        digest = blake3.blake3()
        if entry.size == 0:
            yield AddFile(path, b"")
        for chunk in self._payload():
            digest.update(chunk)
            yield AddFile(path, chunk)
        if digest.hexdigest() != entry.hash:
            raise InvalidBundle(
                f"the content of {entry.path!r} is not what the file list says",
                hint="deploy again; the file may have changed while it was being read",
                path=entry.path,
            )
        self.new_files += 1
        self.new_bytes += entry.size

    def _next(self) -> Member | None:
        try:
            return next(self._members, None)
        except (TarError, zstandard.ZstdError) as error:
            raise _broken(error) from error

    def _payload(self) -> Iterator[bytes]:
        try:
            yield from self._reader.payload()
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
    if member.size != entry.size:
        raise InvalidBundle(
            f"{member.name!r} has {member.size} bytes, its file list says {entry.size}",
            hint="deploy again; the file may have changed while it was being read",
            path=member.name,
        )
    return entry


def _broken(error: Exception) -> InvalidBundle:
    return InvalidBundle(f"the upload is broken: {error}", hint="deploy again")
