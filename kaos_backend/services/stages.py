"""The stages that a workspace may have, in their order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kaos_pipelines import specs

from kaos_backend.domain.deploys import ANNOTATION, AUTO, GIVEN
from kaos_backend.domain.stages import Stage, Target
from kaos_formats import names
from kaos_formats.arguments import variant


def _fetch(target: Target) -> Mapping[str, Any]:
    return specs.fetch_spec(target.workspace, target.fetching, target.secrets)


def _build(target: Target) -> Mapping[str, Any]:
    return specs.build_spec(target.workspace, target.source, target.builder, target.arguments, target.secrets)


def _train(target: Target) -> Mapping[str, Any]:
    spec = specs.train_spec(
        target.workspace,
        names.image_name(target.workspace, target.source, target.builder, variant(target.arguments)),
        parallelism=target.parallelism,
        cpu=target.resources.cpu,
        memory_bytes=target.resources.memory,
        gpu=target.resources.gpu,
        tries=target.resources.tries,
        timeout_s=target.resources.timeout_s,
        data=names.FETCH if target.fetched else names.DATA,
    )
    return {**spec, "metadata": {"annotations": {ANNOTATION: AUTO if target.auto else GIVEN}}}


FETCH = Stage(names.FETCH, "fetching", (names.MANIFEST,), (names.MANIFEST,), _fetch)
BUILD = Stage(names.BUILD, "building", (names.SOURCE,), (names.SOURCE,), _build, image=True)
TRAIN = Stage(
    names.TRAIN,
    "training",
    (names.FETCH, names.BUILD, names.DATA, names.HYPER),
    (names.SOURCE,),
    _train,
    trials=True,
)
STAGES = (FETCH, BUILD, TRAIN)
"""All there may be; training reads its data from one of two repos."""
NAMES = tuple(stage.name for stage in STAGES)
_READS_DATA = replace(TRAIN, inputs=(names.BUILD, names.DATA, names.HYPER))
_READS_FETCHED = replace(TRAIN, inputs=(names.FETCH, names.BUILD, names.HYPER))


def stages_of(*, fetched: bool) -> tuple[Stage, ...]:
    """The stages that a deploy may have to run; ``fetched``: the data is that of a manifest."""
    return (FETCH, BUILD, _READS_FETCHED) if fetched else (BUILD, _READS_DATA)
