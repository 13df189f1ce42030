"""The inputs that a deploy changes: what their commits will say, and where their content is until then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from kaos_backend.domain import hyperparams
from kaos_backend.domain.descriptions import Description, rfc3339
from kaos_backend.services import inputs
from kaos_backend.services.bundles import Bundles, no_bundle
from kaos_backend.services.commit import Part
from kaos_formats import names


@dataclass(frozen=True, slots=True)
class Parts:
    """Makes them, for a deploy of ``author`` at a time."""

    bundles: Bundles
    workspace: str
    author: str
    now: datetime

    def of_bundles(
        self,
        changed: Iterable[str],
        wanted: Mapping[names.BundleKind, str],
        heads: Mapping[str, inputs.Head | None],
        refresh: bool,
    ) -> list[Part]:
        """Those of the bundles that have changed. Raises NoBundle for one that was not sent."""
        changed = set(changed)
        found: list[Part] = []
        for kind, bundle_id in wanted.items():
            head = heads[kind] if kind in changed else None
            if head is not None and head.description.id == bundle_id:
                again = head.behind and not (refresh and kind == names.MANIFEST)
                found.append(self._again(kind, head) if again else self._anew(kind, head))
            elif kind in changed:
                found.append(self._sent(kind, bundle_id))
        return found

    def of_grid(self, grid: hyperparams.Grid) -> Part:
        description = Description(
            kind="hyper", id=grid.id, author=self.author, created=self._created, trials=len(grid.trials),
            grid=grid.as_given(), owner=self.bundles.staging.owner,
        )  # fmt: skip
        return Part(names.HYPER, description)

    def _sent(self, kind: names.BundleKind, bundle_id: str) -> Part:
        held = self.bundles.content(self.workspace, kind, bundle_id)
        if held is None:
            raise no_bundle(self.workspace, kind, bundle_id)
        part = self._anew(kind, held)
        return replace(part, staged=held.description.kind == "staging")

    def _anew(self, kind: names.BundleKind, held: inputs.Head) -> Part:
        about = held.description
        description = Description(
            kind=kind, id=about.id, name=about.name, author=self.author, created=self._created,
            files=about.files, bytes=about.bytes, staging=held.commit.id, owner=self.bundles.staging.owner,
            # Whenever a manifest is deployed its servers are asked.
            refresh=self._created if kind == names.MANIFEST else "",
        )  # fmt: skip
        return Part(kind, description)

    def _again(self, kind: str, head: inputs.Head) -> Part:
        """What is current already, down to the last byte, so that nothing is done twice."""
        owner = self.bundles.staging.owner
        return Part(kind, replace(head.description, staging=head.commit.id, owner=owner))

    @property
    def _created(self) -> str:
        return rfc3339(self.now) or ""
