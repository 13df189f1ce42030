"""The file sets of `pfs_v2.API`; `storage.Fileset` is the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import grpc
from betterproto.lib.google.protobuf import Empty
from pachyderm_sdk.api import pfs

from kaos_backend.engine.errors import InvalidArgument
from kaos_backend.engine.facade.convert import find_commit
from kaos_backend.engine.facade.pfs.modify import Modify
from kaos_backend.engine.facade.rpc import Handlers, client_stream, refers, unary
from kaos_backend.engine.store.model import Commit
from kaos_backend.engine.store.names import FILESETS_REPO
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.store.trees.edit import Delete, Operation, Overlay, Put

# As the storage of pachd shards by itself.
_MAX_SHARD_FILES = 1_000_000
_MAX_SHARD_BYTES = 1_000_000_000


def compose(store: Store, ids: Sequence[str], ttl_s: int) -> str:
    """The id of a new file set: what the given ones do, in order.

    Raises:
        InvalidArgument: there is none.
        NotFound: one is not there (any more).
    """
    if not ids:
        raise InvalidArgument("name at least one file set to compose")
    operations = [operation for id_ in ids for operation in store.filesets.get(id_).operations]
    with store.upload() as upload, store.write() as txn:
        root = txn.edit(None, operations, upload)
    return store.filesets.add(operations, root, ttl_s)


def shard(store: Store, id_: str, files: int, size_bytes: int) -> list[tuple[str, str]]:
    """Ranges of paths, [lower, upper), "" for no bound, that hold at most so many files and bytes each.

    0 is pachd's own measure. A file that is larger by itself has a range of its own.
    """
    root = store.filesets.get(id_).root
    most, largest = files or _MAX_SHARD_FILES, size_bytes or _MAX_SHARD_BYTES
    if most < 0 or largest < 0:
        raise InvalidArgument("the number of files and bytes of a shard must not be negative")
    count = size = 0
    bounds = [""]
    before = ""
    for entry in store.walk(root):
        if entry.kind != "file":
            continue
        # A path under several tags cannot be parted.
        full = count >= most or size + entry.size_bytes > largest
        if count and full and entry.path != before:
            bounds.append(entry.path)
            count = size = 0
        count += 1
        size += entry.size_bytes
        before = entry.path
    return list(zip(bounds, [*bounds[1:], ""], strict=True))


class FileSetRpcs:
    """`readable` resolves the commit that a request reads, refusing what cannot be read."""

    def __init__(self, store: Store, modify: Modify, readable: Callable[[pfs.Commit], Commit]) -> None:
        self._store = store
        self._modify = modify
        self._readable = readable

    def handlers(self) -> Handlers:
        store = self._store
        return {
            "CreateFileSet": client_stream(self._modify.create_file_set),
            "GetFileSet": unary(refers(store, self._get), pfs.GetFileSetRequest),
            "AddFileSet": unary(refers(store, self._add), pfs.AddFileSetRequest),
            "RenewFileSet": unary(refers(store, self._renew), pfs.RenewFileSetRequest),
            "ComposeFileSet": unary(refers(store, self._compose), pfs.ComposeFileSetRequest),
            "ShardFileSet": unary(refers(store, self._shard), pfs.ShardFileSetRequest),
        }

    def _get(self, request: pfs.GetFileSetRequest, _: grpc.ServicerContext) -> pfs.CreateFileSetResponse:
        if request.commit.repo.name == FILESETS_REPO:
            return pfs.CreateFileSetResponse(file_set_id=compose(self._store, [request.commit.id], 0))
        commit = self._readable(request.commit)
        root = commit.root
        operations: list[Operation] = [Overlay(root)]
        if request.type == pfs.GetFileSetRequestFileSetType.DIFF:
            parent = None if commit.parent is None else self._store.inspect_commit(commit.parent)
            operations = list(self._changes(root, None if parent is None else parent.root))
            with self._store.upload() as upload, self._store.write() as txn:
                root = txn.edit(None, operations, upload)
        return pfs.CreateFileSetResponse(file_set_id=self._store.filesets.add(operations, root))

    def _changes(self, new: bytes | None, old: bytes | None) -> Iterator[Operation]:
        for after, before in self._store.diff(new, old):
            if before is not None and before.kind == "file":
                yield Delete(before.path, before.tag)
            if after is not None and after.kind == "file":
                yield Put(after.path, after.tag, after.hash, after.size_bytes)

    def _add(self, request: pfs.AddFileSetRequest, _: grpc.ServicerContext) -> Empty:
        held = self._store.filesets.get(request.file_set_id)
        with self._store.upload() as upload, self._store.write() as txn:
            txn.apply(find_commit(txn, request.commit).key, upload, held.operations)
        return Empty()

    def _renew(self, request: pfs.RenewFileSetRequest, _: grpc.ServicerContext) -> Empty:
        self._store.filesets.renew(request.file_set_id, request.ttl_seconds)
        return Empty()

    def _compose(
        self, request: pfs.ComposeFileSetRequest, _: grpc.ServicerContext
    ) -> pfs.CreateFileSetResponse:
        id_ = compose(self._store, request.file_set_ids, request.ttl_seconds)
        return pfs.CreateFileSetResponse(file_set_id=id_)

    def _shard(self, request: pfs.ShardFileSetRequest, _: grpc.ServicerContext) -> pfs.ShardFileSetResponse:
        ranges = shard(self._store, request.file_set_id, request.num_files, request.size_bytes)
        return pfs.ShardFileSetResponse(
            shards=[pfs.PathRange(lower=lower, upper=upper) for lower, upper in ranges]
        )
