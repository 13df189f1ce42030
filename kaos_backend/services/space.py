"""The disk space that all workspaces take, and what of it can go."""

from __future__ import annotations

from collections.abc import Iterator

from kaos_backend.pachd.port import Pachd
from kaos_backend.services import views
from kaos_backend.services.lines import CollectEnd, CollectLine, CollectProgress, StoredImage
from kaos_formats import kaos_v1


class Space:
    """Over all workspaces: content is shared between them."""

    def __init__(self, pachd: Pachd) -> None:
        self._pachd = pachd

    def use(self) -> views.DiskUse:
        """What takes the disk. Raises NeedsEmbeddedEngine."""
        told = self._pachd.disk_use()
        workspaces = {name: _share(share) for name, share in sorted(told.projects.items())}
        shared, can_go = _share(told.shared), _share(told.unneeded)
        shares = [*workspaces.values(), shared, can_go]
        return views.DiskUse(
            workspaces=workspaces,
            shared=shared,
            can_go=can_go,
            database=told.database,
            total=sum(share.total for share in shares) + told.database,
        )

    def collect(self, dry_run: bool) -> Iterator[CollectLine]:
        """How far it is, and what went at the end. Raises NeedsEmbeddedEngine."""
        for told in self._pachd.collect(dry_run):
            if isinstance(told, kaos_v1.CollectProgress):
                progress = CollectProgress(stage=told.stage, done=told.done, total=told.total)
                yield CollectLine(progress=progress)
            else:
                yield CollectLine(end=_end(told, dry_run))


def _share(told: kaos_v1.DiskShare) -> views.DiskShare:
    return views.DiskShare(
        data=told.data,
        models=told.models,
        images=told.images,
        inputs=told.inputs,
        logs=told.logs,
        total=told.data + told.models + told.images + told.inputs + told.logs,
    )


def _end(told: kaos_v1.Collected, dry_run: bool) -> CollectEnd:
    images = [
        StoredImage(kind=one.kind, name=one.name, bytes=one.bytes, images=one.images) for one in told.images
    ]
    return CollectEnd(
        objects=told.objects,
        object_bytes=told.object_bytes,
        directories=told.directories,
        packs=told.packs,
        freed_bytes=told.freed_bytes,
        database_bytes=told.database_bytes,
        images=images,
        logs=told.logs,
        log_bytes=told.log_bytes,
        inputs=told.inputs,
        input_bytes=told.input_bytes,
        bytes=told.freed_bytes
        + told.database_bytes
        + told.log_bytes
        + told.input_bytes
        + sum(one.bytes for one in images),
        dry_run=dry_run,
    )
