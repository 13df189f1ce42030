"""The images of a Docker engine, as workers need them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import docker
from docker.errors import ImageNotFound

from kaos_backend.engine.errors import NotFound
from kaos_backend.engine.workers.docker.engine import told

OWN_PREFIX = "kaos/"
_REBUILD = "deploy its source again to build it"


@dataclass(frozen=True, slots=True)
class Image:
    """What a worker needs to know of its image. `id` is that of its content: a name may move on."""

    id: str
    env: Mapping[str, str]
    workdir: str
    user: str

    def run_as(self, user: str, working_dir: str | None) -> Image:
        """With what a pipeline says in place of what the image does."""
        return replace(self, user=user or self.user, workdir=working_dir or self.workdir)


def find(api: docker.APIClient, name: str) -> Image | None:
    """The image of that name; None when the engine has none. Raises EngineError when it does not answer."""
    with told(f"image {name} cannot be looked up"):
        try:
            found: dict[str, Any] = api.inspect_image(name)  # type: ignore[no-untyped-call]
        except ImageNotFound:
            return None
    config = found.get("Config") or {}
    pairs = (entry.partition("=") for entry in config.get("Env") or ())
    return Image(
        id=found["Id"],
        env={name: value for name, _, value in pairs},
        workdir=config.get("WorkingDir") or "/",
        user=config.get("User") or "",
    )


def obtain(api: docker.APIClient, name: str) -> Image:
    """The image of that name, pulled if it is one of a registry and not here yet.

    Raises:
        NotFound: one of kaos' own, which no build has made here; or one that no registry has.
        Unknown: the engine does not answer, or cannot reach the registry.
    """
    image = find(api, name)
    if image is None and not is_own(name):
        with told(f"image {name} is not on this machine and cannot be pulled"):
            api.pull(name)
        image = find(api, name)
    if image is None:
        raise NotFound(missing(name))
    return image


def is_own(name: str) -> bool:
    """Whether it is made by kaos' builder, and by nobody else."""
    return name.startswith(OWN_PREFIX)


def missing(name: str) -> str:
    """What to do about an image that is not there, in a line."""
    return f"image {name} not found: no build made it yet, or it was removed; {_REBUILD}"
