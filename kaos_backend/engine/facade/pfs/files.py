"""Files and file sets of `pfs_v2.API`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import grpc
from pachyderm_sdk.api import pfs

from kaos_backend.engine.errors import DataLoss, NotFound, Unimplemented, Unknown
from kaos_backend.engine.facade import wire
from kaos_backend.engine.facade.convert import at_most, commit_given, commit_message, find_commit
from kaos_backend.engine.facade.pfs import tar
from kaos_backend.engine.facade.pfs.modify import Modify
from kaos_backend.engine.facade.rpc import Handlers, client_stream, reads, server_stream, unary
from kaos_backend.engine.store.model import Commit, FileEntry
from kaos_backend.engine.store.names import FILESETS_REPO
from kaos_backend.engine.store.store import Store
from kaos_formats.protobuf import field

_MAX_FILES = 100_000
_NO_BUCKETS = (
    "{} is not built into the embedded engine, which has no credentials of buckets or databases: read the "
    "files and write them where they are to go"
)


class _Source(NamedTuple):
    """A tree to read: its root, the commit (None: a file set), and how its FileInfos name it."""

    root: bytes | None
    commit: Commit | None
    message: bytes
    name: str

    @property
    def committed_us(self) -> int | None:
        return None if self.commit is None else self.commit.finishing_us


class FileRpcs:
    def __init__(self, store: Store, modify: Modify) -> None:
        self._store = store
        self._modify = modify

    def handlers(self) -> Handlers:
        store = self._store
        return {
            "ModifyFile": client_stream(self._modify.modify_file),
            "GetFile": server_stream(reads(store, self._get_file), pfs.GetFileRequest),
            "GetFileTAR": server_stream(reads(store, self._get_file_tar), pfs.GetFileRequest),
            "InspectFile": unary(self._inspect_file, pfs.InspectFileRequest),
            "ListFile": server_stream(reads(store, self._list_file), pfs.ListFileRequest),
            "WalkFile": server_stream(reads(store, self._walk_file), pfs.WalkFileRequest),
            "GlobFile": server_stream(reads(store, self._glob_file), pfs.GlobFileRequest),
            "DiffFile": server_stream(reads(store, self._diff_file), pfs.DiffFileRequest),
            "Egress": unary(self._egress, pfs.EgressRequest),
        }

    def _source(self, message: pfs.Commit) -> _Source:
        """The tree that a request reads.

        Raises:
            Unknown: the commit's base is still being written.
        """
        if message.repo.name == FILESETS_REPO:
            root = self._store.filesets.get(message.id).root
            return _Source(root, None, bytes(message), f"file set {message.id}")
        commit = self.readable(message)
        key = commit.key
        encoded = field(2, key.id.encode()) + field(
            3,
            field(1, key.repo.name.encode())
            + field(2, key.repo.type.encode())
            + field(3, field(1, key.repo.project.encode())),
        )
        return _Source(commit.root, commit, encoded, f"repo {key.repo} at commit {key.id}")

    def readable(self, message: pfs.Commit) -> Commit:
        """The commit that a message names.

        Raises:
            Unknown: its base is still being written.
        """
        commit = find_commit(self._store, message)
        if commit.base_open:
            raise Unknown(f"base commit {commit.parent} for commit {commit.key} unfinished")
        return commit

    def _infos(self, source: _Source, entries: Iterable[FileEntry]) -> Iterator[bytes]:
        return map(wire.file_info_encoder(source.message, source.committed_us), entries)

    # Content

    def _matches(self, request: pfs.GetFileRequest, source: _Source) -> list[FileEntry]:
        """What the request's glob matches, outermost directories only.

        Raises:
            NotFound: nothing.
        """
        if request.url:
            raise Unimplemented(_NO_BUCKETS.format("GetFile with a URL"))
        path = request.file.path or "/"
        lower, upper = request.path_range.lower, request.path_range.upper
        found: list[FileEntry] = []
        inside = ""
        for entry in self._store.glob(source.root, path):
            if inside and entry.path.startswith(inside):
                continue
            if request.file.datum and entry.kind == "file" and entry.tag != request.file.datum:
                continue
            if entry.kind == "file" and not _in_range(entry.path, lower, upper):
                continue
            inside = entry.path if entry.kind == "dir" else ""
            found.append(entry)
        if not found:
            raise NotFound(f"file {path} not found in {source.name}")
        return found

    def _get_file(self, request: pfs.GetFileRequest, _: grpc.ServicerContext) -> Iterator[bytes]:
        source = self._source(request.file.commit)
        found = self._matches(request, source)
        if any(entry.kind == "dir" for entry in found):
            raise Unknown("cannot get directory or non-regular file. Use GetFileTAR instead")
        if len(found) > 1:
            raise Unknown(
                f"matched multiple files. Use GetFileTAR instead ({found[0].path}, {found[1].path}, …)"
            )
        try:
            for piece in self._store.read_file(found[0], max(request.offset, 0)):
                yield wire.bytes_value(piece)
        except DataLoss as error:
            raise error.at(source.name) from error

    def _get_file_tar(self, request: pfs.GetFileRequest, _: grpc.ServicerContext) -> Iterator[bytes]:
        source = self._source(request.file.commit)
        matches = self._matches(request, source)
        lower, upper = request.path_range.lower, request.path_range.upper

        def members() -> Iterator[FileEntry]:
            for match in matches:
                below = self._store.walk(source.root, match.path) if match.kind == "dir" else iter((match,))
                for entry in below:
                    wanted = not request.file.datum or entry.kind == "dir" or entry.tag == request.file.datum
                    # The root has no name that an archive could hold.
                    if wanted and entry.path != "/" and _in_range(entry.path, lower, upper):
                        yield entry

        try:
            for piece in tar.stream(self._store, members(), source.committed_us):
                yield wire.bytes_value(piece)
        except DataLoss as error:
            raise error.at(source.name) from error

    def _egress(self, _request: pfs.EgressRequest, _: grpc.ServicerContext) -> pfs.EgressResponse:
        raise Unimplemented(_NO_BUCKETS.format("pfs_v2.API/Egress"))

    # Entries

    def _inspect_file(self, request: pfs.InspectFileRequest, _: grpc.ServicerContext) -> bytes:
        source = self._source(request.file.commit)
        path = request.file.path or "/"
        try:
            entry = self._store.stat(source.root, path, request.file.datum or None)
        except NotFound as error:
            raise NotFound(f"file {path} not found in {source.name}") from error
        return next(self._infos(source, [entry]))

    def _list_file(self, request: pfs.ListFileRequest, _: grpc.ServicerContext) -> Iterator[bytes]:
        source = self._source(request.file.commit)
        entries = self._store.list_dir(source.root, request.file.path or "/")
        return self._infos(
            source, _page(entries, request.pagination_marker.path, request.number, request.reverse)
        )

    def _walk_file(self, request: pfs.WalkFileRequest, _: grpc.ServicerContext) -> Iterator[bytes]:
        source = self._source(request.file.commit)
        path = request.file.path or "/"
        try:
            entries = _page(
                self._store.walk(source.root, path),
                request.pagination_marker.path,
                request.number,
                request.reverse,
            )
            yield from self._infos(source, entries)
        except NotFound as error:
            raise NotFound(f"{source.name} does not contain item: ({path})") from error

    def _glob_file(self, request: pfs.GlobFileRequest, _: grpc.ServicerContext) -> Iterator[bytes]:
        source = self._source(request.commit)
        lower, upper = request.path_range.lower, request.path_range.upper
        entries = self._store.glob(source.root, request.pattern)
        return self._infos(source, (entry for entry in entries if _in_range(entry.path, lower, upper)))

    def _diff_file(self, request: pfs.DiffFileRequest, _: grpc.ServicerContext) -> Iterator[bytes]:
        new = self._source(request.new_file.commit)
        new_path = request.new_file.path or "/"
        old, old_path = _Source(None, None, b"", ""), new_path
        if commit_given(request.old_file.commit):
            old, old_path = self._source(request.old_file.commit), request.old_file.path or "/"
        elif new.commit is not None and new.commit.parent is not None:
            parent = new.commit.parent
            old = self._source(commit_message(parent))
        encode_new = wire.file_info_encoder(new.message, new.committed_us)
        encode_old = wire.file_info_encoder(old.message, old.committed_us)
        if old_path.strip("/") == new_path.strip("/"):
            pairs = self._store.diff(new.root, old.root, new_path)
        else:
            pairs = _differences(self._below(new.root, new_path), self._below(old.root, old_path))
        for a, b in pairs:
            message = b""
            if a is not None:
                message += field(1, encode_new(a))
            if b is not None:
                message += field(2, encode_old(b))
            yield message

    def _below(self, root: bytes | None, path: str) -> Iterator[FileEntry]:
        """All of a path, which need not be there."""
        try:
            yield from self._store.walk(root, path)
        except NotFound:
            return


def _differences(
    new: Iterator[FileEntry], old: Iterator[FileEntry]
) -> Iterator[tuple[FileEntry | None, FileEntry | None]]:
    """What is in one listing only, or different in both, by path."""
    a, b = next(new, None), next(old, None)
    while a is not None or b is not None:
        at = min((one.path, one.tag) for one in (a, b) if one is not None)
        first = a if a is not None and (a.path, a.tag) == at else None
        second = b if b is not None and (b.path, b.tag) == at else None
        if first is None or second is None or first.hash != second.hash:
            yield first, second
        if first is not None:
            a = next(new, None)
        if second is not None:
            b = next(old, None)


def _in_range(path: str, lower: str, upper: str) -> bool:
    return (not lower or path >= lower) and (not upper or path < upper)


def _page(entries: Iterable[FileEntry], marker: str, number: int, reverse: bool) -> Iterator[FileEntry]:
    """The part of a listing that was asked for; `marker` is excluded, `number` 0 is everything."""
    if number > _MAX_FILES:
        raise Unknown(f"cannot return more than {_MAX_FILES} files at a time (asked for {number})")
    if reverse:
        if number == 0:
            raise Unknown("number must be > 0 when reverse is true")
        entries = reversed([entry for entry in entries if not marker or entry.path < marker])
    elif marker:
        entries = (entry for entry in entries if entry.path > marker)
    return islice(entries, at_most(number))
