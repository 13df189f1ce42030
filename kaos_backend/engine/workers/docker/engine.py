"""The Docker engine of this machine: how it is reached, and what its errors mean here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound

from kaos_backend.engine.errors import EngineError, FailedPrecondition, NotFound, Unknown
from kaos_formats.docker_engine import DEFAULT_HOST, build_network, client, socket_path

# How long a plain call may take. Hijacked streams have no such limit.
TIMEOUT_S = 60
_PROBE_S = 5
_LOST = "start it again, or see whether it is in trouble (docker info)"


def connect(env: Mapping[str, str], timeout_s: int = TIMEOUT_S) -> docker.APIClient:
    """A client of the engine that `DOCKER_HOST` names, by default of the one at /var/run/docker.sock.

    Raises:
        FailedPrecondition: it is on another machine, where the folders of this one do not exist.
        Unknown: none answers.
    """
    address = env.get("DOCKER_HOST") or ""
    if socket_path(address) is None:
        raise FailedPrecondition(
            f"DOCKER_HOST is {address}: workers need a Docker engine on this machine (unix://…), which sees"
            " the same files"
        )
    with told(f"no Docker engine answers at {address or DEFAULT_HOST}"):
        return client(address, timeout_s)


def for_builds(env: Mapping[str, str]) -> dict[str, str]:
    """What a build need not ask the engine itself, as variables. Raises EngineError when none answers."""
    with connect(env, _PROBE_S) as api, told("the Docker engine cannot be asked"):
        return {"DOCKER_API_VERSION": api.api_version, "KAOS_BUILD_NETWORK": build_network(api)}


def answers(env: Mapping[str, str]) -> bool:
    """Whether there is an engine on which workers could run."""
    try:
        check(env)
    except EngineError:
        return False
    return True


def check(env: Mapping[str, str]) -> None:
    """Raises EngineError with the reason when no worker could run."""
    with connect(env, _PROBE_S) as api, told("the Docker engine cannot be asked"):
        owner_in_containers(api.info(), os.geteuid(), os.getegid())


@contextmanager
def told(doing: str) -> Iterator[None]:
    """Turn the errors of the `docker` package into the engine's, saying what went wrong: `doing`."""
    try:
        yield
    except EngineError:
        raise
    except ImageNotFound as error:
        raise NotFound(f"{doing}: {error.explanation or error}") from error
    except APIError as error:
        raise Unknown(f"{doing}: {error.explanation or error}") from error
    except (DockerException, requests.RequestException, OSError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Unknown(f"{doing}: {why}; {_LOST}") from error


def owner_in_containers(info: Mapping[str, object], uid: int, gid: int) -> str:
    """Who a file in a container must belong to (`uid:gid`) for the user `uid` to own it here; "" for root.

    `info`: what the engine says of itself.

    Raises:
        FailedPrecondition: no file of a container can belong to that user.
    """
    options = info.get("SecurityOptions") or []
    names = " ".join(map(str, options)) if isinstance(options, list) else ""
    if "name=rootless" in names:
        return "0:0"  # which is the user whose engine it is
    if "name=userns" in names:
        raise FailedPrecondition(
            "the Docker engine maps users (userns-remap): what trials write would belong to nobody here;"
            " switch that off, or use the process runtime (KAOS_RUNTIME=process)"
        )
    return "" if uid == 0 else f"{uid}:{gid}"
