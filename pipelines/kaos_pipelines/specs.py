"""The specs of a workspace's pipelines, as CreatePipelineRequest JSON (section 10 of the Pachyderm
reference).

Pure functions of their arguments: equal arguments give equal specs, so "does the pipeline need an update" is
a comparison of values. `update` and `reprocess` are the caller's: they belong to the request, never to the
spec.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from kaos_formats.arguments import VARIABLE as BUILD_ARGS
from kaos_formats.arguments import format_arguments, variant
from kaos_formats.build_secrets import mounts
from kaos_formats.images import BUILDER_IMAGE
from kaos_formats.names import (
    BUILD,
    DATA,
    FETCH,
    HYPER,
    ID_LENGTH,
    MANIFEST,
    MASTER,
    SOURCE,
    TIMEOUT,
    TRAIN,
    image_name,
)

Json = dict[str, Any]


def train_script() -> list[str]:
    """The lines of train.sh, as `transform.stdin` takes them."""
    return resources.files(__package__).joinpath("train.sh").read_text("utf-8").splitlines()


def fetch_spec(workspace: str, settings: Mapping[str, str], secrets: Iterable[str] = ()) -> Json:
    """Spec of the `fetch` pipeline, which brings the files that a manifest names, with variables that say
    what it may fetch and the secrets of these ids.

    One datum, so that what it brings is one bundle, and one try: it tries again itself what may succeed.
    """
    named = mounts(workspace, secrets)
    return {
        "pipeline": {"project": {"name": workspace}, "name": FETCH},
        "description": "fetches the remote files that the manifest names",
        "input": {"pfs": _pfs(workspace, MANIFEST, "/")},
        "transform": {
            "image": BUILDER_IMAGE,
            "cmd": ["python", "-m", "kaos_pipelines.fetch"],
            "env": {"KAOS_WORKSPACE": workspace, **settings},
            **({"secrets": named} if named else {}),
        },
        "datumTries": 1,
        "parallelismSpec": {"constant": 1},
    }


def build_spec(
    workspace: str,
    source_id: str,
    builder: str = "venv",
    arguments: Mapping[str, str] | None = None,
    secrets: Iterable[str] = (),
) -> Json:
    """Spec of the `build` pipeline for a source bundle, whose image `builder` makes with build arguments and
    the secrets of these ids.

    One try: a Dockerfile that fails fails again.
    """
    given = format_arguments(arguments or {})
    named = mounts(workspace, secrets)
    return {
        "pipeline": {"project": {"name": workspace}, "name": BUILD},
        "description": f"makes the training image of source {source_id[:6]}",
        "input": {"pfs": _pfs(workspace, SOURCE, "/")},
        "transform": {
            "image": BUILDER_IMAGE,
            "cmd": ["python", "-m", "kaos_pipelines.build"],
            "env": {
                "KAOS_IMAGE": image_name(workspace, source_id, builder, variant(arguments or {})),
                "KAOS_SOURCE_ID": source_id,
                "KAOS_WORKSPACE": workspace,
                **({BUILD_ARGS: given} if given else {}),
            },
            **({"secrets": named} if named else {}),
        },
        "datumTries": 1,
        "parallelismSpec": {"constant": 1},
    }


def train_spec(
    workspace: str,
    image: str,
    *,
    parallelism: int = 1,
    cpu: float | None = None,
    memory_bytes: int | None = None,
    gpu: int | None = None,
    tries: int = 1,
    timeout_s: float | None = None,
    data: str = DATA,
    script: list[str] | None = None,
) -> Json:
    """Spec of the `train` pipeline: one datum per (image, data bundle, params).

    `cpu` in cores (default 1), `memory_bytes` in bytes (default: no limit), `gpu` in whole devices (default
    none); all three are per trial. A failing trial is run `tries` times and then recovered (`errCmd`), so
    that the others' models land; each time takes at most `timeout_s` seconds (default: no limit). `data` is
    the repo with the data bundle.
    Raises ValueError for amounts that no machine can grant.
    """
    cores = 1.0 if cpu is None else float(cpu)
    if parallelism < 1 or cores <= 0 or (memory_bytes is not None and memory_bytes < 1) or (gpu or 0) < 0:
        raise ValueError(
            f"not grantable: parallelism={parallelism} cpu={cpu} memory={memory_bytes} gpu={gpu}"
        )
    if tries < 1 or (timeout_s is not None and timeout_s <= 0):
        raise ValueError(f"no trial could run: tries={tries} timeout_s={timeout_s}")
    limits: Json = {"cpu": cores}
    if memory_bytes is not None:
        limits["memory"] = str(memory_bytes)
    if gpu:
        limits["gpu"] = {"type": "nvidia.com/gpu", "number": gpu}
    return {
        "pipeline": {"project": {"name": workspace}, "name": TRAIN},
        "description": f"trains one model per point of the grid with {image}",
        "input": {
            "cross": [
                {"pfs": _pfs(workspace, BUILD, "/*")},
                # Not `/*`, which would match `/<id>.tree`.
                {"pfs": _pfs(workspace, data, "/" + "?" * ID_LENGTH) | {"name": DATA}},
                {"pfs": _pfs(workspace, HYPER, "/*")},
            ]
        },
        "transform": {
            "image": image,
            "cmd": ["sh"],
            "stdin": train_script() if script is None else script,
            "errCmd": ["true"],
            "env": {
                "KAOS_WORKSPACE": workspace,
                "KAOS_CPU": f"{cores:g}",
                "KAOS_MEMORY": "" if memory_bytes is None else str(memory_bytes),
                "KAOS_GPU": str(gpu or 0),
                # Not `datumTimeout`: what runs out of that is not recovered, and fails the whole job.
                **({} if timeout_s is None else {TIMEOUT: f"{timeout_s:.3f}".rstrip("0").rstrip(".")}),
            },
        },
        "datumTries": tries,
        "parallelismSpec": {"constant": parallelism},
        "resourceLimits": limits,
    }


def _pfs(workspace: str, repo: str, glob: str) -> Json:
    return {"project": workspace, "repo": repo, "branch": MASTER, "glob": glob, "name": repo}
