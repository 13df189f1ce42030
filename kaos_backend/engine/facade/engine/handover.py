"""`kaos_v1.Engine`: files of this machine, taken and written where they lie."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from kaos_backend.engine.errors import DataLoss, InvalidArgument
from kaos_backend.engine.facade.errors import Cancelled
from kaos_backend.engine.facade.peer import require_same_user
from kaos_backend.engine.facade.rpc import Handlers, bidirectional, server_stream
from kaos_backend.engine.store.model import RepoKey
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.store.trees.export import export
from kaos_formats import kaos_v1

_EXECUTABLE = 0o755
_WHAT = "files are handed over"


class HandoverService:
    """The part of the service that is for the engine's own user on its own machine."""

    name = kaos_v1.SERVICE

    def __init__(self, store: Store) -> None:
        self._store = store

    def handlers(self) -> Handlers:
        return {
            "Ingest": bidirectional(self._ingest, kaos_v1.IngestRequest),
            "Export": server_stream(self._export, kaos_v1.ExportRequest),
        }

    def _ingest(
        self, requests: Iterator[kaos_v1.IngestRequest], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        require_same_user(context, _WHAT)
        first = next(requests, None)
        if first is None or first.folder is None:
            raise InvalidArgument("the first message must name the folder")
        with self._store.ingest(first.folder) as taking:
            for request in requests:
                for taken in taking.take(request.files):
                    yield bytes(kaos_v1.IngestResponse(read_bytes=taken.read_bytes, hashes=taken.hashes))
                    if not context.is_active():
                        raise Cancelled("the call was cancelled")
            # A stream that was broken off must not look like one that ended.
            if not context.is_active():
                raise Cancelled("the call was cancelled")
            file_set = self._store.keep(taking)
            new_files, new_bytes = taking.new()
        yield bytes(kaos_v1.IngestResponse(file_set=file_set, new_files=new_files, new_bytes=new_bytes))

    def _export(self, request: kaos_v1.ExportRequest, context: grpc.ServicerContext) -> Iterator[bytes]:
        require_same_user(context, _WHAT)
        commit = self._store.resolve_commit(RepoKey(request.project, request.repo), request.commit)
        written = export(
            self._store,
            commit.root,
            request.path,
            request.into,
            request.name,
            request.places,
            dict.fromkeys(request.executable, _EXECUTABLE),
            request.mode & 0o666,
        )
        try:
            for part in written:
                yield bytes(kaos_v1.ExportResponse(files=part.files, bytes=part.size_bytes))
                if not context.is_active():
                    raise Cancelled("the call was cancelled")
        except DataLoss as error:
            raise error.at(f"repo {commit.key.repo} at commit {commit.key.id}") from error
