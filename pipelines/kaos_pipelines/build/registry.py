"""The registry that images are pushed to, and pulled from where another engine has built them.

Who may is in the user's own Docker configuration (`docker login`), which the `docker` package reads.
"""

from __future__ import annotations

from typing import Any

import docker
from docker.errors import APIError, NotFound

from kaos_formats.images import pushed
from kaos_pipelines.build.errors import BuildError
from kaos_pipelines.build.log import BuildLog


def fetch(api: docker.APIClient, image: str, registry: str, log: BuildLog) -> str | None:
    """Pull what the registry has for `image`: the name that it has here then; None when there is none.

    A registry that cannot be asked has none: the image can be built.
    """
    remote = pushed(image, registry)
    try:
        api.inspect_distribution(remote)  # type: ignore[no-untyped-call]
    except NotFound:
        return None
    except APIError as error:
        log.say(f"{registry} cannot be asked for {image}: {error.explanation or error}")
        return None
    log.say(f"pulling {remote}")
    try:
        api.pull(remote)
    except APIError as error:
        log.say(f"{remote} cannot be pulled: {error.explanation or error}")
        return None
    return remote


def is_there(api: docker.APIClient, image: str, registry: str) -> bool:
    """Whether the registry has got the image, as far as the engine knows."""
    found: dict[str, Any] = api.inspect_image(image)  # type: ignore[no-untyped-call]
    remote = pushed(image, registry)
    digests = {one.partition("@")[0] for one in found.get("RepoDigests") or ()}
    return remote in (found.get("RepoTags") or ()) and remote.rpartition(":")[0] in digests


def push(api: docker.APIClient, image: str, registry: str, log: BuildLog) -> None:
    """Push `image`. Raises BuildError."""
    remote = pushed(image, registry)
    repository, _, tag = remote.rpartition(":")
    api.tag(image, repository, tag)
    for message in api.push(repository, tag, stream=True, decode=True):
        if "error" in message:
            raise BuildError(
                f"the image is built, but cannot be pushed to KAOS_REGISTRY={registry}: {message['error']}"
            )
    log.say(f"pushed {remote}")
