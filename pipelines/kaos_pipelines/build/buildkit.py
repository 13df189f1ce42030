"""Builds with BuildKit through the API of a Docker engine, as `docker build` asks for them.

The engine's answer is a stream of JSON: BuildKit's own news of the build (`moby.buildkit.trace`), the image's
id (`moby.image.id`), and an error that ends it.
"""

from __future__ import annotations

import base64
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import docker
import requests
from docker.errors import create_api_error_from_http_exception

from kaos_formats.proxies import is_proxy
from kaos_pipelines.build import authorities
from kaos_pipelines.build.errors import BuildError
from kaos_pipelines.build.filesync import FileSync, folders
from kaos_pipelines.build.instructions import Failures, Written, amended, declared
from kaos_pipelines.build.log import BuildLog
from kaos_pipelines.build.messages import StatusResponse, Vertex
from kaos_pipelines.build.order import Order
from kaos_pipelines.build.session import Logins, Secrets, Service, session

_BUILDKIT = "2"
_STEP = re.compile(r"\[(?:(\S+) )?(\d+)/(\d+)\] (.*)", re.DOTALL)
_EXIT_CODE = re.compile(r"exit code: (\d+)")
# What becomes of the steps that run while another one fails.
_CANCELED = "context canceled"
# Below /dev, which is none of the image's: a mount elsewhere would leave the folder that it stands in.
_CA, _APT = "/dev/kaos/ca.pem", "/dev/kaos/apt.conf"
_MOUNT = "--mount=type=secret,id=kaos-{},target={},mode=0444,required=true"
_TRUST = f"{_MOUNT.format('ca', _CA)} {_MOUNT.format('apt', _APT)}"
_CHUNK = 1 << 16


def carry_out(api: docker.APIClient, host: str, order: Order, log: BuildLog) -> str:
    """The id of the image, which has the order's names. `host`: where `api` is, as in DOCKER_HOST.

    Raises BuildError; NoSessions where the engine has no BuildKit.
    """
    text = order.bundle.dockerfile
    secrets = {name: value.encode() for name, value in order.secrets.items()}
    if order.authorities is not None:
        names = authorities.variables(_CA) | {"APT_CONFIG": _APT}
        text = amended(text, [f"ARG {name}={value}" for name, value in names.items()], _TRUST)
        secrets["kaos-ca"] = order.authorities.encode()
        secrets["kaos-apt"] = authorities.apt_configuration(_CA).encode()
    services: list[Service] = [FileSync(folders(text, order.bundle.context)), Logins(), Secrets(secrets)]
    with session(host, services) as name:
        unknown = order.arguments.keys() - declared(order.steps)
        log.warn_unused(argument for argument in unknown if not is_proxy(argument))
        parameters = {
            "version": _BUILDKIT,
            "session": name,
            "remote": "client-session",
            "dockerfile": "Dockerfile",
            "labels": json.dumps(dict(order.labels)),
            "buildargs": json.dumps({**order.arguments, **order.proxies}),
            "t": list(order.names),
            **({"networkmode": order.network} if order.network else {}),
        }
        # The engine ends a build whose answer nobody reads any more.
        with api.post(f"{api.base_url}/v{api.api_version}/build", params=parameters, stream=True) as answer:
            try:
                answer.raise_for_status()
            except requests.HTTPError as error:
                create_api_error_from_http_exception(error)
            lines = filter(bytes.strip, answer.iter_lines(_CHUNK))
            return follow(map(json.loads, lines), order.steps, log)


def follow(messages: Iterable[Mapping[str, Any]], steps: Sequence[Written], log: BuildLog) -> str:
    """Tell the log what the engine says, in the words of a classic build; the image's id.

    Raises BuildError.
    """
    made, failure = "", ""
    progress = _Progress(steps, log)
    for message in messages:
        if message.get("id") == "moby.buildkit.trace":
            progress.take(StatusResponse.FromString(base64.b64decode(message["aux"])))
        elif message.get("id") == "moby.image.id":
            made = message["aux"]["ID"]
        failure = message.get("error") or failure
    if progress.failure is not None:
        raise progress.failure
    if failure or not made:
        raise BuildError(failure or "the Docker engine ended the build without an image and without a word")
    return made


class _Progress:
    """What of a build's vertices has been told. `failure`: the error of the first step that failed."""

    def __init__(self, steps: Sequence[Written], log: BuildLog) -> None:
        self._failures = Failures(steps, log)
        self._log = log
        self._names: dict[str, str] = {}
        self._cached: set[str] = set()
        self._rest: dict[str, str] = {}
        self._last: dict[str, deque[str]] = {}
        self.failure: BuildError | None = None

    def take(self, news: StatusResponse) -> None:
        for vertex in news.vertexes:
            self._begin(vertex)
        for piece in news.logs:
            *lines, rest = (self._rest.pop(piece.vertex, "") + piece.msg.decode(errors="replace")).split("\n")
            self._rest[piece.vertex] = rest
            self._say(piece.vertex, lines)
        for vertex in news.vertexes:
            if vertex.completed:
                self._end(vertex)

    def _begin(self, vertex: Vertex) -> None:
        step = _STEP.fullmatch(vertex.name.replace(f"{_TRUST} ", ""))
        if step is None or not vertex.started:
            return
        if vertex.digest not in self._names:
            self._names[vertex.digest] = step[4]
            self._log.say(f"Step {step[2]}/{step[3]} : {step[4]}")
        if vertex.cached and vertex.digest not in self._cached:
            self._cached.add(vertex.digest)
            self._log.say(" ---> Using cache")

    def _end(self, vertex: Vertex) -> None:
        if rest := self._rest.pop(vertex.digest, ""):
            self._say(vertex.digest, [rest])
        name = self._names.get(vertex.digest)
        if name is not None and self.failure is None and vertex.error and _CANCELED not in vertex.error:
            code, last = _EXIT_CODE.search(vertex.error), self._last.get(vertex.digest, ())
            self.failure = self._failures.at(name, vertex.error, code[1] if code else None, last)

    def _say(self, vertex: str, lines: Iterable[str]) -> None:
        last = self._last.setdefault(vertex, deque(maxlen=Failures.LINES))
        for line in _shown(lines):
            last.append(line)
            self._log.say(line)


def _shown(lines: Iterable[str]) -> Iterator[str]:
    """As a terminal would show them in the end: progress bars overwrite their line."""
    for line in lines:
        yield line.removesuffix("\r").rpartition("\r")[2]
