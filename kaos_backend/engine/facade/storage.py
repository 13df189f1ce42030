"""`storage.Fileset`: the file sets of `pfs_v2.API` at a lower level, without commits and datums."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b

import grpc
import re2
from betterproto import which_one_of
from betterproto.lib.google.protobuf import Empty
from pachyderm_sdk.api import cdr, storage

from kaos_backend.engine.errors import DataLoss, InvalidArgument
from kaos_backend.engine.facade import wire
from kaos_backend.engine.facade.chunks import CHUNK_BYTES, ChunkServer
from kaos_backend.engine.facade.errors import Cancelled
from kaos_backend.engine.facade.pfs.filesets import compose, shard
from kaos_backend.engine.facade.rpc import Handlers, client_stream, reads, refers, server_stream, unary
from kaos_backend.engine.store.model import FileEntry
from kaos_backend.engine.store.store import Store, Upload
from kaos_formats.protobuf import field, text

_APPEND_FILE, _DELETE_FILE, _COPY_FILE = 1, 2, 3
Accepts = Callable[[str], bool]
# What clients get wrong is their own business, and no line of the engine's log.
_OPTIONS = re2.Options()
_OPTIONS.log_errors = False


class FilesetService:
    """`chunks` serves what the references of ReadFilesetCDR name."""

    name = "storage.Fileset"

    def __init__(self, store: Store, chunks: ChunkServer) -> None:
        self._store = store
        self._chunks = chunks

    def handlers(self) -> Handlers:
        store = self._store
        return {
            "CreateFileset": client_stream(self._create),
            "ReadFileset": server_stream(reads(store, self._read), storage.ReadFilesetRequest),
            "ReadFilesetCDR": server_stream(reads(store, self._read_cdr), storage.ReadFilesetRequest),
            "RenewFileset": unary(refers(store, self._renew), storage.RenewFilesetRequest),
            "ComposeFileset": unary(refers(store, self._compose), storage.ComposeFilesetRequest),
            "ShardFileset": unary(refers(store, self._shard), storage.ShardFilesetRequest),
        }

    def _create(
        self, messages: Iterator[bytes], context: grpc.ServicerContext
    ) -> storage.CreateFilesetResponse:
        store = self._store
        with store.upload() as upload:
            for message in messages:
                self._take(message, upload)
                del message
            # A stream that was broken off must not look like one that ended.
            if not context.is_active():
                raise Cancelled("the call was cancelled")
            upload.seal()
            with store.write() as txn:
                root = txn.edit(None, upload.operations, upload)
            # While the upload still has its lease.
            id_ = store.filesets.add(upload.operations, root)
        return storage.CreateFilesetResponse(fileset_id=id_)

    def _take(self, message: bytes, upload: Upload) -> None:
        arms = [arm for arm in wire.fields(memoryview(message)) if arm[0] <= _COPY_FILE]
        if not arms:
            raise InvalidArgument("validate recv: modification: value is required")
        number, content = arms[-1]
        if number == _APPEND_FILE:
            # AppendFile{path 1, data 2 (BytesValue)}
            path, data = "", memoryview(b"")
            for inner, value in wire.fields(content):
                if inner == 1:
                    path = wire.text(value)
                elif inner == 2:
                    data = next((one for at, one in wire.fields(value) if at == 1), memoryview(b""))
            upload.add(path, "", data)
        elif number == _DELETE_FILE:
            upload.delete(wire.delete_file(content)[0], "")
        else:
            copy = storage.CopyFile.FromString(bytes(content))
            root = self._store.filesets.get(copy.fileset_id).root
            upload.copy(copy.dst or copy.src, "", root, copy.src, "", append=False)

    def _files(self, request: storage.ReadFilesetRequest) -> Iterator[FileEntry]:
        """The files that pass all filters, by path."""
        accepts = [_filter(one) for one in request.filters]
        for entry in self._store.walk(self._store.filesets.get(request.fileset_id).root):
            if entry.kind == "file" and all(accept(entry.path) for accept in accepts):
                yield entry

    def _read(self, request: storage.ReadFilesetRequest, _: grpc.ServicerContext) -> Iterator[bytes]:
        # ReadFilesetResponse{path 1, data 2 (BytesValue)}
        for entry in self._files(request):
            path = text(1, entry.path)
            if request.empty_files or not entry.size_bytes:
                yield path
                continue
            try:
                for piece in self._store.read_file(entry):
                    yield path + field(2, wire.bytes_value(piece))
            except DataLoss as error:
                raise error.at(f"file set {request.fileset_id}") from error

    def _read_cdr(
        self, request: storage.ReadFilesetRequest, _: grpc.ServicerContext
    ) -> Iterator[storage.ReadFilesetCdrResponse]:
        for entry in self._files(request):
            refs: Sequence[cdr.Ref] = ()
            if not request.empty_files:
                try:
                    refs = list(self._references(entry))
                except DataLoss as error:
                    raise error.at(f"{entry.path} in file set {request.fileset_id}") from error
            ref = refs[0] if len(refs) == 1 else cdr.Ref(concat=cdr.Concat(refs=list(refs)))
            yield storage.ReadFilesetCdrResponse(path=entry.path, ref=ref)

    def _references(self, entry: FileEntry) -> Iterator[cdr.Ref]:
        """To the pieces of a file, each with the hash by which clients keep it."""
        hasher, offset, length = blake2b(digest_size=32), 0, 0
        for piece in self._store.read_file(entry):
            view = memoryview(piece)
            while view:
                part = view[: CHUNK_BYTES - length]
                hasher.update(part)
                length += len(part)
                view = view[len(part) :]
                if offset + length == entry.size_bytes or length == CHUNK_BYTES:
                    yield self._reference(entry, offset, length, hasher.digest())
                    hasher, offset, length = blake2b(digest_size=32), offset + length, 0

    def _reference(self, entry: FileEntry, offset: int, length: int, digest: bytes) -> cdr.Ref:
        url = self._chunks.url(entry.hash, offset, length)
        inner = cdr.Ref(http=cdr.Http(url=url))
        return cdr.Ref(content_hash=cdr.ContentHash(inner=inner, algo=cdr.HashAlgo.BLAKE2b_256, hash=digest))

    def _renew(self, request: storage.RenewFilesetRequest, _: grpc.ServicerContext) -> Empty:
        self._store.filesets.renew(request.fileset_id, request.ttl_seconds)
        return Empty()

    def _compose(
        self, request: storage.ComposeFilesetRequest, _: grpc.ServicerContext
    ) -> storage.ComposeFilesetResponse:
        id_ = compose(self._store, request.fileset_ids, request.ttl_seconds)
        return storage.ComposeFilesetResponse(fileset_id=id_)

    def _shard(
        self, request: storage.ShardFilesetRequest, _: grpc.ServicerContext
    ) -> storage.ShardFilesetResponse:
        ranges = shard(self._store, request.fileset_id, request.num_files, request.size_bytes)
        return storage.ShardFilesetResponse(
            shards=[storage.PathRange(lower=lower, upper=upper) for lower, upper in ranges]
        )


def _filter(message: storage.FileFilter) -> Accepts:
    """Whether a path passes. Patterns are Go's, which are RE2's, unanchored.

    Raises:
        InvalidArgument: it is no pattern.
    """
    arm, _ = which_one_of(message, "filter")
    if arm == "path_range":
        lower, upper = message.path_range.lower, message.path_range.upper
        return lambda path: (not lower or path >= lower) and (not upper or path < upper)
    try:
        pattern = re2.compile(message.path_regex, _OPTIONS)
    except re2.error as error:
        raise InvalidArgument(
            f"path_regex {message.path_regex!r} is no regular expression: {error}"
        ) from None
    return lambda path: pattern.search(path) is not None
