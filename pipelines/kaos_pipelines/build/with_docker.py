"""The Docker builder: the user's whole Dockerfile, carried out by a Docker engine."""

from __future__ import annotations

import re
import tarfile
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import IO, Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from kaos_formats.masking import Masker
from kaos_pipelines.build.bundle import Bundle
from kaos_pipelines.build.errors import BuildError, not_executable, without_train
from kaos_pipelines.build.instructions import Written, written
from kaos_pipelines.build.log import BuildLog

SOURCE_LABEL = "kaos.source"
# In the tar beside the context, and taken out of it again by the engine.
_DOCKERFILE, _DOCKERIGNORE = ".kaos-dockerfile", ".dockerignore"
_PROXIES = re.compile(r"(?i:(https?|ftp|no|all)_proxy)")
_STEP = re.compile(r"Step (\d+)/\d+ : ")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# What the engine says between a step's own lines.
_BOOKKEEPING = re.compile(r" ---> |Removing intermediate container ")
_EXIT_CODE = re.compile(r"returned a non-zero code: (\d+)")
# Of the output of a step that failed, what is looked through for the line that says why.
_LAST_LINES = 20
_TIMEOUT_S = 24 * 3600


def build(bundle: Bundle, image: str, env: Mapping[str, str], log: BuildLog) -> dict[str, Any]:
    """Build `image` on the engine that `DOCKER_HOST` in `env` names.

    Returns the content of image.json, in which secrets are masked. Raises BuildError; then the engine has no
    image of that name that it had not before.
    """
    steps = written(bundle.dockerfile)
    log.mask = Masker([bundle.dockerfile])
    result = {
        "image": image,
        "source": bundle.id,
        "builder": "docker",
        "steps": [log.mask(step.text) for step in steps],
    }
    try:
        api = docker.APIClient(base_url=env.get("DOCKER_HOST") or None, version="auto", timeout=_TIMEOUT_S)
        try:
            if _is_built(api, image, bundle.id):
                log.say(f"{image} is there already")
            else:
                made = _carry_out(api, bundle, steps, env, log)
                _check_train(api, made)
                repository, _, tag = image.rpartition(":")
                api.tag(made, repository, tag)
                log.say(f"Successfully built {image}")
        finally:
            api.close()
    except APIError as error:
        raise BuildError(f"the Docker engine refuses: {error.explanation or error}") from error
    except (DockerException, requests.RequestException) as error:
        raise BuildError(f"the Docker engine does not answer: {error}") from error
    return result


def _is_built(api: docker.APIClient, image: str, source: str) -> bool:
    try:
        found: dict[str, Any] = api.inspect_image(image)  # type: ignore[no-untyped-call]
    except ImageNotFound:
        return False
    return ((found.get("Config") or {}).get("Labels") or {}).get(SOURCE_LABEL) == source


def _carry_out(
    api: docker.APIClient, bundle: Bundle, steps: tuple[Written, ...], env: Mapping[str, str], log: BuildLog
) -> str:
    """The id of the image, which has no name yet."""
    networks = {network["Name"] for network in api.networks()}
    with tempfile.TemporaryFile(prefix="kaos-context-") as context:
        _pack(bundle, context)
        context.seek(0)
        messages = api.build(
            fileobj=context,
            custom_context=True,
            dockerfile=_DOCKERFILE,
            labels={SOURCE_LABEL: bundle.id},
            # Docker keeps these out of layers and of what its cache compares.
            buildargs={name: value for name, value in env.items() if _PROXIES.fullmatch(name)},
            network_mode=None if "bridge" in networks else "host",
            rm=True,
            forcerm=True,
            decode=True,
        )
        return _follow(messages, steps, log)


def _follow(messages: Iterator[dict[str, Any]], steps: tuple[Written, ...], log: BuildLog) -> str:
    made, rest = "", ""
    number = 0
    last: deque[str] = deque(maxlen=_LAST_LINES)
    pulled: set[tuple[str, str]] = set()
    for message in messages:
        made = (message.get("aux") or {}).get("ID") or made
        if "error" in message:
            step = steps[number - 1] if 0 < number <= len(steps) else None
            reason = log.mask(_reason(message["error"], last))
            raise BuildError(reason, step.line if step else None, log.mask(step.text) if step else "")
        if "stream" in message:
            *lines, rest = (rest + _COLOURS.sub("", message["stream"])).split("\n")
            for line in filter(str.strip, lines):
                if step_line := _STEP.match(line):
                    number = int(step_line[1])
                    last.clear()
                elif not _BOOKKEEPING.match(line):
                    last.append(line)
                log.say(line.rstrip())
        elif "status" in message:
            # Of a pull, each layer's states; not how far each is, many times a second.
            state = str(message.get("id", "")), str(message["status"])
            if state not in pulled and "progress" not in message:
                pulled.add(state)
                log.say(": ".join(filter(None, state)))
    if not made:
        raise BuildError("the Docker engine ended the build without an image and without a word")
    return made


def _reason(error: str, last: deque[str]) -> str:
    """One line: what a person needs first of a step that failed."""
    code = _EXIT_CODE.search(error)
    if code is None:
        return " ".join(error.split())
    said = [line.strip() for line in last]
    # pip and apt end with advice; what went wrong stands above, marked.
    marked = [line for line in said if re.match(r"(?i)(e|error|fatal)\b", line)]
    why = (marked or said)[-1:]
    return ": ".join([f"exit code {code[1]}", *why])


def _pack(bundle: Bundle, out: IO[bytes]) -> None:
    """The context as a tar that is the same for the same bundle, with the Dockerfile beside it."""
    beside = {
        _DOCKERFILE: bundle.dockerfile.encode(),
        _DOCKERIGNORE: f"{_DOCKERFILE}\n{_DOCKERIGNORE}\n".encode(),
    }
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in beside.items():
            tar.addfile(_entry(path, len(content), 0o644), BytesIO(content))
        for path, file in sorted(bundle.context.files.items()):
            if path not in beside:
                with file.source.open("rb") as data:
                    tar.addfile(_entry(path, file.source.stat().st_size, file.mode), data)


def _entry(path: str, size: int, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = size, mode
    return entry


def _check_train(api: docker.APIClient, image: str) -> None:
    """Raises BuildError unless `train` is an executable file in the image's WORKDIR."""
    found: dict[str, Any] = api.inspect_image(image)  # type: ignore[no-untyped-call]
    workdir = (found.get("Config") or {}).get("WorkingDir") or "/"
    where = f"{workdir.rstrip('/')}/train"
    container: str = api.create_container(image, entrypoint=["train"], command=[])["Id"]
    try:
        _, status = api.get_archive(container, where)
    except NotFound:
        raise without_train(where) from None
    finally:
        api.remove_container(container, force=True, v=True)
    # A link's own mode says nothing of what it leads to.
    if not status["linkTarget"] and not status["mode"] & 0o111:
        raise not_executable(where)
