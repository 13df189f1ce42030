"""Builds with the classic builder of a Docker engine, through its API: for where BuildKit cannot be asked."""

from __future__ import annotations

import json
import re
import tarfile
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import BytesIO
from typing import IO, Any

import docker

from kaos_pipelines.build import authorities
from kaos_pipelines.build.bundle import Bundle
from kaos_pipelines.build.errors import BuildError
from kaos_pipelines.build.instructions import Failures, Written, amended
from kaos_pipelines.build.log import BuildLog
from kaos_pipelines.build.order import Order

# In the tar beside the context, and taken out of it again by the engine.
_DOCKERFILE, _DOCKERIGNORE = ".kaos-dockerfile", ".dockerignore"
_TRUST = "/run/kaos"
_STEP = re.compile(r"Step (\d+)/\d+ : ")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# What the engine says between a step's own lines.
_BOOKKEEPING = re.compile(r" ---> |Removing intermediate container |Successfully built [0-9a-f]{12}$")
_EXIT_CODE = re.compile(r"returned a non-zero code: (\d+)")


def carry_out(api: docker.APIClient, order: Order, log: BuildLog) -> str:
    """The id of the image, which has no name yet. Raises BuildError."""
    with tempfile.TemporaryFile(prefix="kaos-context-") as context, ExitStack() as stack:
        text = order.bundle.dockerfile
        if order.authorities is not None:
            text = amended(text, stack.enter_context(_trust(api, order.authorities)))
        _pack(order.bundle, text, context)
        context.seek(0)
        messages = api.build(
            fileobj=context,
            custom_context=True,
            dockerfile=_DOCKERFILE,
            labels=dict(order.labels),
            buildargs={**order.arguments, **order.proxies},
            network_mode=order.network or None,
            rm=True,
            forcerm=True,
            decode=True,
        )
        return follow(messages, order.steps, log)


@contextmanager
def _trust(api: docker.APIClient, pem: str) -> Iterator[list[str]]:
    """Instructions that make the steps of a stage trust certificates.

    This builder mounts nothing into a step, so these leave a file in the image; it comes from an image of its
    own, as `COPY . .` would take it out of the context, too.
    """
    files = {"ca.pem": pem, "apt.conf": authorities.apt_configuration(f"{_TRUST}/ca.pem")}
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            tar.addfile(_entry(name, len(content.encode()), 0o644), BytesIO(content.encode()))
    said = json.loads(api.import_image_from_data(out.getvalue()).splitlines()[-1])
    image: str = said["status"]
    names = authorities.variables(f"{_TRUST}/ca.pem") | {"APT_CONFIG": f"{_TRUST}/apt.conf"}
    try:
        yield [f"COPY --from={image} . {_TRUST}/", *(f"ARG {name}={path}" for name, path in names.items())]
    finally:
        api.remove_image(image)


def follow(messages: Iterator[dict[str, Any]], steps: Sequence[Written], log: BuildLog) -> str:
    """Tell the log what the engine says; the image's id. Raises BuildError."""
    failures = Failures(steps, log)
    made, rest, step = "", "", ""
    last: deque[str] = deque(maxlen=Failures.LINES)
    pulled: set[tuple[str, str]] = set()
    failure: BuildError | None = None
    for message in messages:
        made = (message.get("aux") or {}).get("ID") or made
        if "error" in message:
            code = _EXIT_CODE.search(message["error"])
            failure = failures.at(step, message["error"], code[1] if code else None, last)
        if "stream" in message:
            *lines, rest = (rest + _COLOURS.sub("", message["stream"])).split("\n")
            for line in filter(str.strip, lines):
                if begins := _STEP.match(line):
                    step = line[begins.end() :]
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
    # The stream is read to its end, or its connection would stay open.
    if failure is not None:
        raise failure
    if not made:
        raise BuildError("the Docker engine ended the build without an image and without a word")
    return made


def _pack(bundle: Bundle, dockerfile: str, out: IO[bytes]) -> None:
    """The context as a tar that is the same for the same bundle, with the Dockerfile beside it."""
    beside = {
        _DOCKERFILE: dockerfile.encode(),
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
