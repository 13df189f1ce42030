"""Settings of the backend process: the only reader of environment variables."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from kaos_formats.home import Home

DEFAULT_SERVE_PORT = 8443
KIB = 1024
MIB = 1024 * KIB
TIB = 1024 * 1024 * MIB


class SettingsError(Exception):
    """An environment variable has a value that cannot be used; the message names it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the HTTP API takes before it refuses: sizes in bytes, times in seconds. docs/api.md shows them.

    Together they bound what the process can be made to hold, so that a request which is refused for one of
    them names the limit and costs the others nothing.
    """

    connections: int = 128
    headers: int = 64
    headers_bytes: int = 16 * KIB
    path_bytes: int = 2 * KIB
    query_bytes: int = 4 * KIB
    head_s: float = 10.0
    """From the connection (or the request's first byte) to the end of its headers."""

    body_bytes: int = 4 * MIB
    body_values: int = 250_000
    """Values in a JSON body: what it takes to parse, which is many times its size."""
    body_depth: int = 32
    body_s: float = 30.0
    small_body_bytes: int = 64 * KIB
    """Bodies up to this size need no place among ``large_bodies``."""
    upload_bytes: int = TIB

    stall_s: float = 30.0
    stall_bytes: int = 16 * KIB
    """A client that waits to be read or to read moves so many bytes in any ``stall_s``, or is cut off."""

    calls: int = 16
    uploads: int = 4
    downloads: int = 8
    logs: int = 32
    foreground: int = 8
    large_bodies: int = 2
    token_requests_s: float = 100.0
    """Requests a second of one token, in the mean; ``token_burst`` at once."""
    token_burst: int = 400
    token_open: int = 32
    """Requests of one token that are being answered at a time, streams included."""
    token_upload_bytes: int = TIB

    queue: int = 64
    """Requests that may wait for a place of each kind, for ``queue_s`` at most."""
    queue_s: float = 30.0

    @property
    def head_bytes(self) -> int:
        """The request's line and headers together."""
        return self.path_bytes + self.query_bytes + self.headers_bytes + KIB

    @property
    def threads(self) -> int:
        """As many as there are places, so that no request waits for the thread of another kind."""
        return self.calls + self.uploads + self.downloads + self.logs + self.foreground


@dataclass(frozen=True, slots=True)
class Served:
    """Where others can reach a backend. ``cert`` and ``key`` are PEM files; None: plain HTTP."""

    host: str
    port: int
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """How a backend runs.

    ``port`` None: the last one if it is free, else any. ``engine_port`` is handed to
    the embedded engine. With ``engine_address`` (``grpc://host:port``) a remote pachd is used instead, with
    ``engine_token`` if it asks for one. ``hosts`` are names besides ``localhost`` under which a proxy or a
    tunnel is asked for this backend. ``fetching``: the variables by which fetches of remote data know what
    they may read; where the backend has other names or is served, others may reach it, and then that is no
    private address unless somebody said so. ``served``: where others reach it, beside the private places.
    """

    home: Home
    port: int | None = None
    engine_port: int | None = None
    engine_address: str | None = None
    engine_token: str | None = None
    hosts: frozenset[str] = frozenset()
    limits: Limits = Limits()
    fetching: Mapping[str, str] = field(default_factory=dict)
    served: Served | None = None

    @property
    def shared(self) -> bool:
        """Whether others can reach this backend."""
        return self.served is not None


def from_environment(environ: Mapping[str, str], serve: bool = False) -> Settings:
    """Settings from KAOS_HOME, KAOS_PORT, KAOS_ENGINE_PORT, KAOS_ENGINE_ADDRESS, KAOS_ENGINE_TOKEN,
    KAOS_HOSTS (comma-separated), KAOS_FETCH_PRIVATE and KAOS_FETCH_ALLOW (docs/remote-data.md), KAOS_LIMITS
    (``name=number``, comma-separated; the names are those of Limits). With ``serve`` also from
    KAOS_SERVE_HOST, KAOS_SERVE_PORT, KAOS_SERVE_TLS_CERT, KAOS_SERVE_TLS_KEY and KAOS_SERVE_INSECURE_HTTP.

    Raises SettingsError.
    """
    hosts = frozenset(name.strip().lower() for name in environ.get("KAOS_HOSTS", "").split(",")) - {""}
    served = _served(environ) if serve else None
    private = environ.get("KAOS_FETCH_PRIVATE") or ("0" if hosts or served else "")
    fetching = {"KAOS_FETCH_PRIVATE": private, "KAOS_FETCH_ALLOW": environ.get("KAOS_FETCH_ALLOW", "")}
    return Settings(
        home=Home.of(environ),
        port=_port(environ, "KAOS_PORT"),
        engine_port=_port(environ, "KAOS_ENGINE_PORT"),
        engine_address=environ.get("KAOS_ENGINE_ADDRESS") or None,
        engine_token=environ.get("KAOS_ENGINE_TOKEN") or None,
        limits=_limits(environ.get("KAOS_LIMITS", "")),
        hosts=hosts,
        served=served,
        fetching={name: value for name, value in fetching.items() if value},
    )


def _served(environ: Mapping[str, str]) -> Served:
    host = environ.get("KAOS_SERVE_HOST") or "127.0.0.1"
    cert, key = (environ.get(name) for name in ("KAOS_SERVE_TLS_CERT", "KAOS_SERVE_TLS_KEY"))
    if key and not cert:
        raise SettingsError("there is a key (--tls-key) and no certificate: give --tls-cert too")
    if not cert and not _is_loopback(host) and environ.get("KAOS_SERVE_INSECURE_HTTP", "") in ("", "0"):
        raise SettingsError(
            f"without TLS nothing is served at {host}: others could read tokens and all that is sent. "
            "Give --tls-cert and --tls-key, or --insecure-http where a proxy in front speaks TLS"
        )
    port = _port(environ, "KAOS_SERVE_PORT")
    if port is None and not environ.get("KAOS_SERVE_PORT"):
        port = DEFAULT_SERVE_PORT
    certificate = None if not cert else Path(cert).expanduser().absolute()
    return Served(host, port or 0, certificate, certificate if not key else Path(key).expanduser().absolute())


def _is_loopback(host: str) -> bool:
    """Whether all that a host name stands for is this machine alone. Raises SettingsError."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"{host!r} is no address of this machine: {error}") from None
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)


def _port(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name)
    if not text:
        return None
    if not text.isdigit() or not 0 <= int(text) <= 65535:
        raise SettingsError(f"{name}={text!r} is no port; use a number from 1 to 65535")
    return int(text) or None


def _limits(text: str) -> Limits:
    numbers = {field.name: float if field.type == "float" else int for field in fields(Limits)}
    given: dict[str, float] = {}
    for item in filter(None, text.replace(" ", "").split(",")):
        name, _, number = item.partition("=")
        try:
            given[name] = numbers[name](number)
        except (KeyError, ValueError):
            known = name in numbers
            what = f"{number!r} is no number for {name}" if known else f"there is no limit {name!r}"
            raise SettingsError(f"KAOS_LIMITS: {what}; see the limits in docs/api.md") from None
        if not 0 < given[name] < float("inf"):
            raise SettingsError(f"KAOS_LIMITS: {name} must be above 0")
    return replace(Limits(), **given)  # type: ignore[arg-type]
