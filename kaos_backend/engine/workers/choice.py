"""Which runtime and builder this machine uses: the one place that knows the adapters."""

from __future__ import annotations

import logging
import re
from collections.abc import Container, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from kaos_backend.engine.errors import InvalidArgument
from kaos_backend.engine.workers.docker.engine import answers, for_builds
from kaos_backend.engine.workers.docker.runtime import DockerRuntime
from kaos_backend.engine.workers.pair import Pair
from kaos_backend.engine.workers.process.builder import HostBuilder
from kaos_backend.engine.workers.process.runtime import ProcessRuntime
from kaos_formats.files import write_atomically
from kaos_formats.home import fetched_files

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_KEPT = "runtime"
_REGISTRY = "KAOS_REGISTRY"
# As Docker tells a registry from a user's name: by a dot, a port, or as localhost.
_HOST = r"localhost|(?=[^/]*[.:])[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*(:[0-9]+)?|\[[0-9A-Fa-f:]+\](:[0-9]+)?"
_REGISTRY_NAME = re.compile(rf"({_HOST})(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")


def choose(env: Mapping[str, str], engine_dir: Path, home: Path) -> Pair:
    """The workers of a home; `home` (KAOS_HOME) stays out of every sandbox.

    KAOS_RUNTIME: `docker` or `process`. Without it, what the home has used so far; at its first use `docker`
    if an engine answers, else `process`. What is chosen is kept: an engine that is down later is an error
    then, never another environment under the same name.

    For processes KAOS_ENGINE_ISOLATION: `auto` (default), `none`, or `bubblewrap` (do not start without it);
    KAOS_ENGINE_LIMITS: `auto` (default), `sampling`, or `cgroup` (do not start without them). For containers
    KAOS_ENGINE_NETWORK: `on` (default) or `off`; KAOS_REGISTRY: where images are pushed and pulled,
    `host:port/prefix`.

    Raises:
        InvalidArgument: naming the variable that makes no sense.
        Unknown: what was asked for does not work here.
    """
    kinds = {"process": _process, "docker": _docker}
    kept = _kept(engine_dir / _KEPT, kinds)
    name = env.get("KAOS_RUNTIME") or kept or _first(env, engine_dir)
    pair = _of({"KAOS_RUNTIME": name}, "KAOS_RUNTIME", name, kinds)(env, engine_dir, home)
    if name != kept:
        try:
            write_atomically(engine_dir / _KEPT, f"{name}\n".encode())
        except OSError as error:
            # A full disk keeps nobody from looking at what there is.
            log.warning("that trials run with the %s runtime could not be noted: %s", name, error)
    return pair


def _kept(path: Path, kinds: Container[str]) -> str:
    """What the home has used last; "" at its first use, or where that is unreadable."""
    try:
        name = path.read_text("utf-8").strip()
    except (OSError, ValueError):
        return ""
    return name if name in kinds else ""


def _first(env: Mapping[str, str], engine_dir: Path) -> str:
    images = engine_dir / "images"
    if images.is_dir() and any(images.iterdir()):
        return "process"  # a home from before there was a choice
    return "docker" if answers(env) else "process"


def _process(env: Mapping[str, str], engine_dir: Path, home: Path) -> Pair:
    isolate = _of(env, "KAOS_ENGINE_ISOLATION", "auto", {"auto": None, "none": False, "bubblewrap": True})
    control = _of(env, "KAOS_ENGINE_LIMITS", "auto", {"auto": None, "sampling": False, "cgroup": True})
    runtime = ProcessRuntime(engine_dir, home=home, isolate=isolate, control=control)
    return Pair(runtime, HostBuilder(engine_dir, "venv", bwrap=runtime.bwrap, fetched=fetched_files(home)))


def _docker(env: Mapping[str, str], engine_dir: Path, home: Path) -> Pair:
    network = _of(env, "KAOS_ENGINE_NETWORK", "on", {"on": True, "off": False})
    registry = _registry(env)
    return Pair(
        DockerRuntime(engine_dir, env, network, registry),
        HostBuilder(engine_dir, "docker", partial(for_builds, env), fetched=fetched_files(home)),
    )


def _registry(env: Mapping[str, str]) -> str:
    text = (env.get(_REGISTRY) or "").rstrip("/")
    if text and not _REGISTRY_NAME.fullmatch(text):
        raise InvalidArgument(f"{_REGISTRY} is {text!r}: must be host:port or host:port/prefix (lower case)")
    return text


def _of(env: Mapping[str, str], name: str, default: str, choices: Mapping[str, _T]) -> _T:
    text = env.get(name) or default
    if text not in choices:
        raise InvalidArgument(f"{name} is {text!r}: must be one of {', '.join(choices)}")
    return choices[text]
