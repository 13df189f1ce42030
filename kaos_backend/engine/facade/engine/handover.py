"""`kaos_v1.Engine`: files of this machine, taken and written where they lie."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from kaos_backend.engine.errors import InvalidArgument, NoHandover
from kaos_backend.engine.facade.errors import Cancelled
from kaos_backend.engine.facade.rpc import Handlers, bidirectional
from kaos_backend.engine.store.store import Store
from kaos_formats import kaos_v1


class HandoverService:
    """The part of the service that is for the engine's own user on its own machine."""

    name = kaos_v1.SERVICE

    def __init__(self, store: Store) -> None:
        self._store = store

    def handlers(self) -> Handlers:
        return {"Ingest": bidirectional(self._ingest, kaos_v1.IngestRequest)}

    def _ingest(
        self, requests: Iterator[kaos_v1.IngestRequest], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        require_same_user(context)
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


def require_same_user(context: grpc.ServicerContext) -> None:
    """Raise NoHandover unless the caller came in over the Unix socket, which is in a folder of its user
    alone.
    """
    if not context.peer().startswith("unix:"):
        raise NoHandover("files are handed over on the engine's Unix socket only, to its own user")
