"""How the Docker engine of this machine is reached, by the workers that run containers and by builds.

Imports the `docker` package: nothing for programs that have to start fast.
"""

from __future__ import annotations

import socket
from contextlib import closing
from http.client import HTTPConnection, HTTPException

import docker
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.utils import version_lt

DEFAULT_HOST = "unix:///var/run/docker.sock"


def socket_path(host: str) -> str | None:
    """The socket that `host` names, as in DOCKER_HOST ("": the usual one); None where it names none."""
    scheme, _, path = (host or DEFAULT_HOST).partition("://")
    return path if scheme in ("unix", "http+unix") else None


def client(host: str, timeout_s: float, version: str = "") -> docker.APIClient:
    """A client that speaks this version of the API, by default as new a one as both sides can.

    Raises OSError when nobody answers that question; docker.errors.DockerException.
    """
    path = socket_path(host)
    version = version or ("auto" if path is None else _newest(path, timeout_s))
    return docker.APIClient(base_url=host or DEFAULT_HOST, version=version, timeout=timeout_s)  # type: ignore[arg-type]


def build_network(api: docker.APIClient) -> str:
    """The network of an image's steps: "" for the engine's own choice, "host" where it has made no bridge."""
    return "" if any(one["Name"] == "bridge" for one in api.networks(names=["bridge"])) else "host"


def _newest(path: str, timeout_s: float) -> str:
    """The version to speak, by /_ping: for /version, which the package asks, the engine runs programs."""
    with closing(HTTPConnection("docker")) as connection:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(timeout_s)
        connection.sock.connect(path)
        try:
            connection.request("GET", "/_ping")
            newest = connection.getresponse().headers["Api-Version"]
        except HTTPException as error:
            raise ConnectionError(f"what listens at {path} is no Docker engine: {error!r}") from error
    if newest is None:
        raise ConnectionError(f"what listens at {path} is no Docker engine")
    return newest if version_lt(newest, DEFAULT_DOCKER_API_VERSION) else DEFAULT_DOCKER_API_VERSION
