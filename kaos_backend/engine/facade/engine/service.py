"""`kaos_v1.Engine`: what is stored, check and repair."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc

from kaos_backend.engine.errors import InvalidArgument
from kaos_backend.engine.facade.rpc import Handlers, client_stream, server_stream, unary
from kaos_backend.engine.store import check
from kaos_backend.engine.store.bytes.objects import EMPTY_HASH, LOOSE_BYTES
from kaos_backend.engine.store.model import RepoKey
from kaos_backend.engine.store.store import Store
from kaos_formats import kaos_v1


class EngineService:
    """`inputs` is where inputs are laid out for jobs: copies to repair from."""

    name = kaos_v1.SERVICE

    def __init__(self, store: Store, inputs: Path | None = None) -> None:
        self._store = store
        self._inputs = inputs

    def handlers(self) -> Handlers:
        return {
            "Check": server_stream(self._check, kaos_v1.CheckRequest),
            "Damaged": unary(self._damaged, kaos_v1.DamagedRequest),
            "Find": unary(self._find, kaos_v1.FindRequest),
            "Receive": client_stream(self._receive),
        }

    def _check(self, request: kaos_v1.CheckRequest, _: grpc.ServicerContext) -> Iterator[bytes]:
        for told in check.check(self._store, request.repair, self._inputs):
            if isinstance(told, check.Progress):
                response = kaos_v1.CheckResponse(
                    progress=kaos_v1.Progress(
                        objects=told.objects,
                        objects_total=told.objects_total,
                        bytes=told.bytes,
                        bytes_total=told.bytes_total,
                    )
                )
            else:
                response = kaos_v1.CheckResponse(finding=_finding(told))
            yield bytes(response)

    def _damaged(self, request: kaos_v1.DamagedRequest, _: grpc.ServicerContext) -> bytes:
        commit = self._store.resolve_commit(RepoKey(request.project, request.repo), request.commit)
        paths = check.damaged_files(self._store, commit.root, request.path)
        return bytes(kaos_v1.DamagedResponse(paths=paths))

    def _find(self, request: kaos_v1.FindRequest, _: grpc.ServicerContext) -> bytes:
        found, file_set = self._store.find(dict(zip(request.objects, request.sizes, strict=False)))
        missing = [at for at, name in enumerate(request.objects) if name not in found]
        sizes = self._store.partials.sizes([request.objects[at] for at in missing])
        begun = [
            (at, size)
            for at in missing
            if 0 < (size := sizes.get(request.objects[at], 0)) < request.sizes[at]
        ]
        return bytes(kaos_v1.FindResponse(file_set=file_set, missing=missing, begun=begun))

    def _receive(self, messages: Iterator[bytes], _: grpc.ServicerContext) -> bytes:
        first = next(messages, None)
        if first is None:
            raise InvalidArgument("the first message must name the object")
        request = kaos_v1.ReceiveRequest.FromString(first)
        if len(request.object) != len(EMPTY_HASH) or request.size < LOOSE_BYTES or request.offset < 0:
            raise InvalidArgument(f"an object of {LOOSE_BYTES} bytes or more, by its BLAKE3-256, is received")
        received = self._store.receive(request.object, request.size, request.offset, messages)
        return bytes(
            kaos_v1.ReceiveResponse(file_set=received.file_set, held=received.size, differs=received.differs)
        )


def _finding(found: check.Finding) -> kaos_v1.Finding:
    repo = found.repo
    return kaos_v1.Finding(
        project="" if repo is None else repo.project,
        repo="" if repo is None else str(repo).removeprefix(f"{repo.project}/"),
        commit=found.commit,
        path=found.path,
        object="" if found.object is None else found.object.hex(),
        what=found.what,
        repaired=found.repaired,
    )
