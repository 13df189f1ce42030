"""Check and repair of all that is stored."""

from __future__ import annotations

from collections.abc import Iterator

from kaos_backend.pachd.port import Pachd
from kaos_backend.services.views import CheckEnd, CheckFinding, CheckLine, CheckProgress
from kaos_formats import kaos_v1


class Checks:
    """Over all workspaces: content is shared between them."""

    def __init__(self, pachd: Pachd) -> None:
        self._pachd = pachd

    def run(self, repair: bool) -> Iterator[CheckLine]:
        """How far it is, what is wrong, and the sum at the end. Raises NeedsEmbeddedEngine."""
        objects = size = damaged = repaired = 0
        for told in self._pachd.check(repair):
            if isinstance(told, kaos_v1.Progress):
                objects, size = told.objects, told.bytes
                yield CheckLine(
                    progress=CheckProgress(
                        objects=told.objects,
                        objects_total=told.objects_total,
                        bytes=told.bytes,
                        bytes_total=told.bytes_total,
                    )
                )
            else:
                damaged += 1
                repaired += told.repaired
                yield CheckLine(
                    finding=CheckFinding(
                        workspace=told.project,
                        repo=told.repo,
                        commit=told.commit,
                        path=told.path,
                        object=told.object,
                        what=told.what,
                        repaired=told.repaired,
                    )
                )
        yield CheckLine(end=CheckEnd(objects=objects, bytes=size, damaged=damaged, repaired=repaired))
