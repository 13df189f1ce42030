"""Check and repair of all that is stored."""

from __future__ import annotations

from collections.abc import Iterator

from kaos_backend.pachd.port import Pachd
from kaos_backend.services import truenames
from kaos_backend.services.lines import CheckEnd, CheckFinding, CheckLine, CheckProgress
from kaos_formats import kaos_v1
from kaos_formats.stored import TrueNames


class _Folders:
    """The bundles and models that findings lie in, each asked for its true names once."""

    def __init__(self, pachd: Pachd) -> None:
        self._pachd = pachd
        self._known: dict[tuple[str, str, str, str], TrueNames | None] = {}

    def true_path(self, finding: kaos_v1.Finding) -> str:
        """The path as people know it; as it is stored where that cannot be told, the store being damaged."""
        folder, _, below = finding.path.strip("/").partition("/")
        at = (finding.project, finding.repo, finding.commit, folder)
        if not below or not all(at):
            return finding.path
        if at not in self._known:
            self._known[at] = truenames.of_folder(self._pachd, *at)
        names = self._known[at]
        return finding.path if names is None else f"/{folder}/{names.path(below)}"


class Checks:
    """Over all workspaces: content is shared between them."""

    def __init__(self, pachd: Pachd) -> None:
        self._pachd = pachd

    def run(self, repair: bool) -> Iterator[CheckLine]:
        """How far it is, what is wrong, and the sum at the end. Raises NeedsEmbeddedEngine."""
        objects = size = damaged = repaired = 0
        folders = _Folders(self._pachd)
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
                        path=folders.true_path(told),
                        object=told.object,
                        what=told.what,
                        repaired=told.repaired,
                    )
                )
        yield CheckLine(end=CheckEnd(objects=objects, bytes=size, damaged=damaged, repaired=repaired))
