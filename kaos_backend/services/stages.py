"""The stages that every workspace has, in their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kaos_pipelines import specs

from kaos_backend.domain.deploys import ANNOTATION, AUTO, GIVEN
from kaos_backend.domain.stages import Stage, Target
from kaos_formats import names
from kaos_formats.arguments import variant


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
    )
    return {**spec, "metadata": {"annotations": {ANNOTATION: AUTO if target.auto else GIVEN}}}


BUILD = Stage(names.BUILD, "building", (names.SOURCE,), (names.SOURCE,), _build)
TRAIN = Stage(
    names.TRAIN, "training", (names.BUILD, names.DATA, names.HYPER), (names.SOURCE,), _train, trials=True
)
STAGES = (BUILD, TRAIN)
NAMES = tuple(stage.name for stage in STAGES)
