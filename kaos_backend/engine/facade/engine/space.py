"""`kaos_v1.Engine`: the space that the store and all beside it takes."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from kaos_backend.engine.facade.rpc import Handlers, server_stream, unary
from kaos_backend.engine.jobs.upkeep import Swept, Upkeep
from kaos_backend.engine.jobs.usage import Share
from kaos_backend.engine.workers.port import StoredImage
from kaos_formats import kaos_v1


class SpaceService:
    """The part of the service that gives space back."""

    name = kaos_v1.SERVICE

    def __init__(self, upkeep: Upkeep) -> None:
        self._upkeep = upkeep

    def handlers(self) -> Handlers:
        return {
            "Collect": server_stream(self._collect, kaos_v1.CollectRequest),
            "DiskUse": unary(self._disk_use, kaos_v1.DiskUseRequest),
        }

    def _disk_use(self, _request: kaos_v1.DiskUseRequest, _: grpc.ServicerContext) -> bytes:
        use = self._upkeep.disk_use()
        return bytes(
            kaos_v1.DiskUseResponse(
                projects={name: _share(share) for name, share in use.projects.items()},
                shared=_share(use.shared),
                unneeded=_share(use.unneeded),
                database=use.database,
            )
        )

    def _collect(self, request: kaos_v1.CollectRequest, _: grpc.ServicerContext) -> Iterator[bytes]:
        for told in self._upkeep.sweep(dry_run=request.dry_run):
            if isinstance(told, Swept):
                yield bytes(kaos_v1.CollectResponse(collected=_collected(told)))
            else:
                progress = kaos_v1.CollectProgress(stage=told.stage, done=told.done, total=told.total)
                yield bytes(kaos_v1.CollectResponse(progress=progress))


def _share(share: Share) -> kaos_v1.DiskShare:
    return kaos_v1.DiskShare(
        data=share.data, models=share.models, images=share.images, inputs=share.inputs, logs=share.logs
    )


def _collected(swept: Swept) -> kaos_v1.Collected:
    store = swept.store
    return kaos_v1.Collected(
        objects=store.objects,
        object_bytes=store.object_bytes,
        directories=store.directories,
        packs=store.packs,
        freed_bytes=store.freed_bytes,
        database_bytes=store.database_bytes,
        images=[stored_image(one) for one in swept.images],
        logs=swept.logs,
        log_bytes=swept.log_bytes,
        inputs=swept.inputs,
        input_bytes=swept.input_bytes,
    )


def stored_image(stored: StoredImage) -> kaos_v1.StoredImage:
    return kaos_v1.StoredImage(
        kind=stored.kind, name=stored.name, bytes=stored.size, images=sorted(stored.images)
    )
