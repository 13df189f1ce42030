"""The images of a Docker engine, as workers need them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound
from docker.errors import NotFound as DockerNotFound

from kaos_backend.engine.errors import NotFound
from kaos_backend.engine.workers.docker.engine import told
from kaos_backend.engine.workers.port import StoredImage, missing
from kaos_formats.images import OWN_PREFIX, claim, claimed, claims, pushed

log = logging.getLogger(__name__)

_CONFLICT = 409


@dataclass(frozen=True, slots=True)
class Image:
    """What a worker needs to know of its image. `id` is that of its content: a name may move on.

    `digest`: its content as the registry has it that it came from or was pushed to, else the id.
    """

    id: str
    digest: str
    env: Mapping[str, str]
    workdir: str
    user: str

    def run_as(self, user: str, working_dir: str | None) -> Image:
        """With what a pipeline says in place of what the image does."""
        return replace(self, user=user or self.user, workdir=working_dir or self.workdir)


def find(api: docker.APIClient, name: str, registry: str = "") -> Image | None:
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
        digest=_digest(found, name, registry),
        env={name: value for name, _, value in pairs},
        workdir=config.get("WorkingDir") or "/",
        user=config.get("User") or "",
    )


def _digest(found: Mapping[str, Any], name: str, registry: str) -> str:
    digests: list[str] = found.get("RepoDigests") or []
    at = pushed(name, registry) if is_own(name) else name
    repository = at.rpartition(":")[0] if ":" in at.rpartition("/")[2] else at
    return next((one for one in digests if one.partition("@")[0] == repository), found["Id"])


def obtain(api: docker.APIClient, name: str, label: str, registry: str = "") -> Image:
    """The image of that name, pulled if it is one of a registry and not here yet.

    One of kaos' own is that of `registry`; the home `label` claims it then.

    Raises:
        NotFound: one of kaos' own, which no build has made; or one that no registry has.
        Unknown: the engine does not answer, or cannot reach the registry.
    """
    image = find(api, name, registry)
    if image is None and not is_own(name):
        with told(f"image {name} is not on this machine and cannot be pulled"):
            api.pull(name)
        image = find(api, name, registry)
    if image is None and registry and is_own(name):
        remote = pushed(name, registry)
        with told(f"image {name} is not on this machine and cannot be pulled from {registry}"):
            api.pull(remote)
            for own in (claim(name, label), name):
                repository, _, tag = own.rpartition(":")
                api.tag(remote, repository, tag)
        image = find(api, name, registry)
    if image is None:
        raise NotFound(missing(name))
    return image


def in_registry(api: docker.APIClient, name: str, registry: str) -> bool:
    """Whether the registry has one of kaos' own images. Raises EngineError when it cannot be asked."""
    with told(f"image {name} is not on this machine, and {registry} cannot be asked for it"):
        try:
            api.inspect_distribution(pushed(name, registry))  # type: ignore[no-untyped-call]
        except (DockerNotFound, ImageNotFound):
            return False
    return True


def is_own(name: str) -> bool:
    """Whether it is made by kaos' builder, and by nobody else."""
    return name.startswith(OWN_PREFIX)


def keep(api: docker.APIClient, label: str, wanted: Callable[[str], bool]) -> bool:
    """Remove the images that the home `label` claims, unless they are `wanted` by name.

    False if some that are in use stay. An image that other homes claim as well loses this home's claim
    alone. Raises EngineError.
    """
    done = True
    with told("forgotten images cannot be removed"):
        names = [name for image in api.images() for name in image["RepoTags"] or ()]
        for mine in names:
            name = claimed(mine) if mine.startswith(claims(label)) else None
            if name is None or wanted(name):
                continue
            try:
                _forget(api, name, mine)
            except ImageNotFound:
                continue
            except APIError as error:
                if error.status_code != _CONFLICT:
                    raise
                log.info("image %s stays for now: %s", name, error.explanation)
                done = False
    return done


def stored(api: docker.APIClient, label: str) -> list[StoredImage]:
    """The images that the home `label` claims, each once, whatever names it has. Raises EngineError."""
    with told("images cannot be listed"):
        found = api.images()
    kept = []
    for image in found:
        mine = (claimed(name) for name in image["RepoTags"] or () if name.startswith(claims(label)))
        if names := frozenset(name for name in mine if name is not None):
            kept.append(StoredImage("image", min(names), int(image["Size"]), names))
    return kept


def _forget(api: docker.APIClient, name: str, mine: str) -> None:
    image: dict[str, Any] = api.inspect_image(mine)  # type: ignore[no-untyped-call]
    names = image["RepoTags"] or []
    # Images that were built alike are one, with the names of all.
    if not any(other != mine and claimed(other) == name for other in names):
        # The claim last: until then it is known whose the image is.
        for own in (other for other in names if other == name or other.endswith(f"/{name}")):
            api.remove_image(own)
    api.remove_image(mine)
