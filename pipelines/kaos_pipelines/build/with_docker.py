"""The Docker builder: the user's whole Dockerfile, carried out by a Docker engine."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any

import docker
import requests
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from kaos_formats.build_secrets import in_environment
from kaos_formats.docker_engine import build_network, client
from kaos_formats.images import claim
from kaos_formats.masking import Masker
from kaos_formats.proxies import proxies_of
from kaos_pipelines.build import buildkit, classic, session
from kaos_pipelines.build.authorities import trusted
from kaos_pipelines.build.bundle import Bundle
from kaos_pipelines.build.errors import BuildError, not_executable, without_train
from kaos_pipelines.build.instructions import Written, copies_context, written
from kaos_pipelines.build.log import BuildLog, told
from kaos_pipelines.build.order import Order
from kaos_pipelines.build.registry import fetch, is_there, push
from kaos_pipelines.build.session import NoSessions

SOURCE_LABEL = "kaos.source"
_TIMEOUT_S = 24 * 3600


def build(
    bundle: Bundle,
    image: str,
    env: Mapping[str, str],
    log: BuildLog,
    arguments: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Build `image` on the engine that `DOCKER_HOST` in `env` names, with build `arguments`.

    Returns the content of image.json, in which secrets are masked. Raises BuildError; then the engine has no
    image of that name that it had not before, unless it was the push that failed.
    """
    steps = written(bundle.dockerfile)
    arguments = arguments or {}
    log.mask = Masker([bundle.dockerfile, *arguments.values()], in_environment(env).values())
    try:
        api = client(env.get("DOCKER_HOST") or "", _TIMEOUT_S, env.get("DOCKER_API_VERSION") or "")
        try:
            registry, names = env.get("KAOS_REGISTRY") or "", _names(image, env)
            if _is_built(api, image, bundle.id):
                _tag(api, image, names)
                log.say(f"{image} is there already")
            elif remote := registry and _fetched(api, image, bundle.id, registry, log):
                _tag(api, remote, names)
            else:
                sure = ends_with_train(bundle, steps)
                made = _carry_out(api, bundle, steps, arguments, names if sure else (), env, log)
                if not sure:
                    try:
                        _check_train(api, made)
                    except BuildError:
                        _remove_unnamed(api, made)
                        raise
                    _tag(api, made, names)
                log.say(f"Successfully built {image}")
            if registry and not is_there(api, image, registry):
                push(api, image, registry, log)
        finally:
            api.close()
    except APIError as error:
        raise BuildError(f"the Docker engine refuses: {error.explanation or error}") from error
    # Those of requests are OSErrors, too.
    except (DockerException, OSError) as error:
        raise BuildError(f"the Docker engine does not answer: {error}") from error
    return {
        "image": image,
        "source": bundle.id,
        "builder": "docker",
        "steps": [log.mask(step.text) for step in steps],
        **told(arguments, log),
    }


def rehearse() -> None:
    """Go through the motions of a build that asks no engine: what was used once is at hand for the next."""
    written("FROM scratch\n")
    api = docker.APIClient(base_url="unix:///dev/null", version=DEFAULT_DOCKER_API_VERSION)
    with closing(api), suppress(DockerException, requests.RequestException):
        _is_built(api, "none", "")
    session.rehearse()


def _is_built(api: docker.APIClient, image: str, source: str) -> bool:
    try:
        found: dict[str, Any] = api.inspect_image(image)  # type: ignore[no-untyped-call]
    except ImageNotFound:
        return False
    return ((found.get("Config") or {}).get("Labels") or {}).get(SOURCE_LABEL) == source


def _fetched(api: docker.APIClient, image: str, source: str, registry: str, log: BuildLog) -> str:
    """The name of what the registry had for the image; "" if it had nothing, or something else."""
    remote = fetch(api, image, registry, log)
    return remote if remote is not None and _is_built(api, remote, source) else ""


def _carry_out(
    api: docker.APIClient,
    bundle: Bundle,
    steps: tuple[Written, ...],
    arguments: Mapping[str, str],
    names: Sequence[str],
    env: Mapping[str, str],
    log: BuildLog,
) -> str:
    """The id of the image, made by BuildKit where the engine has it."""
    order = Order(
        bundle=bundle,
        steps=steps,
        labels={SOURCE_LABEL: bundle.id},
        arguments=arguments,
        proxies=proxies_of(env),
        network=env["KAOS_BUILD_NETWORK"] if "KAOS_BUILD_NETWORK" in env else build_network(api),
        authorities=trusted(env),
        secrets=in_environment(env),
        names=names,
    )
    try:
        return buildkit.carry_out(api, env.get("DOCKER_HOST") or "", order, log)
    except NoSessions:
        if order.secrets and "type=secret" in bundle.dockerfile:
            raise BuildError("build secrets need BuildKit, which the Docker engine does not have") from None
        made = classic.carry_out(api, order, log)
        _tag(api, made, names)
        return made


def ends_with_train(bundle: Bundle, steps: Sequence[Written]) -> bool:
    """Whether there is no doubt that the image will have an executable `train` in its WORKDIR."""
    train = bundle.context.files.get("train")
    return train is not None and bool(train.mode & 0o111) and copies_context(bundle.dockerfile, steps)


def _names(image: str, env: Mapping[str, str]) -> list[str]:
    """An image's name, and first this home's claim: without that nobody would ever remove it."""
    label = env.get("KAOS_HOME_LABEL")
    return ([claim(image, label)] if label else []) + [image]


def _tag(api: docker.APIClient, made: str, names: Iterable[str]) -> None:
    for name in names:
        repository, _, tag = name.rpartition(":")
        api.tag(made, repository, tag)


def _remove_unnamed(api: docker.APIClient, image: str) -> None:
    """Remove an image, unless another build has made the very same and named it."""
    found: dict[str, Any] = api.inspect_image(image)  # type: ignore[no-untyped-call]
    if not found.get("RepoTags"):
        api.remove_image(image)


def _check_train(api: docker.APIClient, image: str) -> None:
    """Raises BuildError unless `train` is an executable file in the image's WORKDIR."""
    found: dict[str, Any] = api.inspect_image(image)  # type: ignore[no-untyped-call]
    workdir = (found.get("Config") or {}).get("WorkingDir") or "/"
    where = f"{workdir.rstrip('/')}/train"
    container: str = api.create_container(image, entrypoint=["train"], command=[])["Id"]
    try:
        status = _status(api, container, where)
    except NotFound:
        raise without_train(where) from None
    finally:
        api.remove_container(container, force=True, v=True)
    # A link's own mode says nothing of what it leads to.
    if not status["linkTarget"] and not status["mode"] & 0o111:
        raise not_executable(where)


def _status(api: docker.APIClient, container: str, path: str) -> dict[str, Any]:
    """What the engine says of a file in a container. Raises NotFound.

    Without its content, for which the engine would start a process of its own: the package has no call.
    """
    url = f"{api.base_url}/v{api.api_version}/containers/{container}/archive"
    answer = api.head(url, params={"path": path})
    if answer.status_code == requests.codes.not_found:
        raise NotFound(path)
    answer.raise_for_status()
    found: dict[str, Any] = json.loads(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"]))
    return found
