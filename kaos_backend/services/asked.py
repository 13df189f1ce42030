"""What a deploy comes to, given what is current in its workspace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kaos_backend import errors
from kaos_backend.domain import deploys, hyperparams
from kaos_backend.domain.stages import Stage, runnable
from kaos_backend.pachd.port import Pachd
from kaos_backend.services import inputs
from kaos_backend.services.fill import heal
from kaos_backend.services.requests import Deploy
from kaos_backend.services.stages import FETCH, stages_of
from kaos_formats import names


@dataclass(frozen=True, slots=True)
class Asked:
    """``bundles`` are those that it names or that have to be committed again; ``ids``, by repo, of what is in
    force and may stay (None: nothing); ``stages``: all that there are, and those ``able`` to run.
    """

    request: Deploy
    grid: hyperparams.Grid | None
    bundles: Mapping[names.BundleKind, str]
    heads: Mapping[str, inputs.Head | None]
    ids: Mapping[str, str | None]
    stages: Sequence[Stage]
    able: Sequence[Stage]

    @property
    def fetched(self) -> bool:
        return FETCH in self.stages

    @property
    def goes_back(self) -> bool:
        """Whether the data is that of before the last deploy of some, which failed."""
        found = ((self.heads[kind], id_) for kind, id_ in self.bundles.items())
        return any(head is not None and head.behind and head.description.id == id_ for head, id_ in found)

    @property
    def wanted(self) -> dict[str, str | None]:
        """The ids of what it names, by repo."""
        found: dict[str, str | None] = {names.HYPER: None if self.grid is None else self.grid.id}
        found.update(self.bundles.items())
        return found

    @property
    def source(self) -> str:
        """The id of the code that will be current."""
        return self.bundles.get(names.SOURCE) or self.ids[names.SOURCE] or ""


def look(pachd: Pachd, workspace: str, request: Deploy, grid: hyperparams.Grid | None, owner: str) -> Asked:
    """What a deploy comes to now. The current grid is healed if it is damaged, by this backend (``owner``).

    Raises InvalidRequest, NoBundle, InvalidResources.
    """
    bundles = request.bundles
    if names.DATA in bundles and names.MANIFEST in bundles:
        raise errors.InvalidRequest("a deploy has data or a manifest, and not both", hint="give one of them")
    heads = inputs.heads(pachd, workspace)
    ids = {
        repo: head.description.id if head is not None and not head.behind else None
        for repo, head in heads.items()
    }
    current = heads[names.HYPER]
    if grid is not None and current is not None and current.description.id == grid.id:
        heal(pachd, workspace, current, owner)
    if names.DATA in bundles or names.MANIFEST in bundles:
        # One takes the other's place.
        ids |= {repo: None for repo in (names.DATA, names.MANIFEST) if repo not in bundles}
    else:
        for repo in (names.DATA, names.MANIFEST):
            head = heads[repo]
            if head is not None and (head.behind or (request.refresh and repo == names.MANIFEST)):
                bundles[repo] = head.description.id
    if request.refresh:
        if names.MANIFEST not in bundles:
            raise errors.NoBundle(
                f"the data of workspace {workspace!r} does not come from a manifest",
                hint="-m MANIFEST gives one; of a folder -d sends what has changed",
                kind=names.MANIFEST,
            )
        ids[names.MANIFEST] = None
    deployed = ids | bundles
    stages_here = stages_of(fetched=deployed[names.MANIFEST] is not None)
    # Without a grid there is one trial, with the training code's own defaults.
    default = hyperparams.expand({})
    able = runnable(stages_here, {**deployed, names.HYPER: default.id})
    if grid is None and ids[names.HYPER] is None and any(names.HYPER in s.inputs for s in able):
        grid = default
    _refuse_what_serves_nothing(request, stages_here, able, deployed)
    return Asked(request, grid, bundles, heads, ids, stages_here, able)


def _refuse_what_serves_nothing(
    request: Deploy, here: Sequence[Stage], able: Sequence[Stage], deployed: Mapping[str, str | None]
) -> None:
    """Raises InvalidResources for settings of a stage that cannot run yet, and so would forget them."""
    if request.settings_given and not any(stage.trials for stage in able):
        what, hint = deploys.missing(here, deployed)
        raise errors.InvalidResources(
            f"-p, --cpu, --memory, --gpu, --tries and --timeout are for training: {what}",
            hint=f"{hint}, and give them together",
        )
    builds = any(stage.image for stage in able)
    if not builds and (request.build_args is not None or (request.for_builds and FETCH not in able)):
        what, hint = deploys.missing([stage for stage in here if stage.image], deployed)
        raise errors.InvalidResources(
            f"--build-arg and --secret are for builds: {what}", hint=f"{hint}, and give them together"
        )
