"""Settings of the backend process: the only reader of environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kaos_formats.home import Home


class SettingsError(Exception):
    """An environment variable has a value that cannot be used; the message names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a backend runs.

    ``port`` None: the last one if it is free, else any. ``engine_port`` is handed to
    the embedded engine. With ``engine_address`` (``grpc://host:port``) a remote pachd is used instead, with
    ``engine_token`` if it asks for one.
    """

    home: Home
    port: int | None = None
    engine_port: int | None = None
    engine_address: str | None = None
    engine_token: str | None = None


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Settings from KAOS_HOME, KAOS_PORT, KAOS_ENGINE_PORT, KAOS_ENGINE_ADDRESS and KAOS_ENGINE_TOKEN.

    Raises SettingsError.
    """
    return Settings(
        home=Home.of(environ),
        port=_port(environ, "KAOS_PORT"),
        engine_port=_port(environ, "KAOS_ENGINE_PORT"),
        engine_address=environ.get("KAOS_ENGINE_ADDRESS") or None,
        engine_token=environ.get("KAOS_ENGINE_TOKEN") or None,
    )


def _port(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name)
    if not text:
        return None
    if not text.isdigit() or not 0 <= int(text) <= 65535:
        raise SettingsError(f"{name}={text!r} is no port; use a number from 1 to 65535")
    return int(text) or None
