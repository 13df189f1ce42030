"""What a fetch may do, from its environment."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kaos_formats.quantity import parse_bytes
from kaos_pipelines.fetch.errors import FetchError
from kaos_pipelines.fetch.guard import Policy

CACHE = "KAOS_FETCH_CACHE"
CACHE_BYTES = "KAOS_FETCH_CACHE_BYTES"
PARALLEL = "KAOS_FETCH_PARALLEL"
# Of the disk, as for the inputs that the engine lays out.
_CACHE_SHARE = 5


@dataclass(frozen=True, slots=True)
class Settings:
    """`cache`: the folder, `cache_bytes` at most (None: a fifth of its disk). `parallel` lines at a time.

    `tries` without progress, between which it waits `backoff_s` seconds and twice as long each time, at most
    `backoff_max_s`. A server may take `connect_s` seconds to answer and be silent for `silence_s`; over any
    `window_s` it sends at least `slowest` bytes a second.
    """

    policy: Policy
    cache: Path
    cache_bytes: int | None = None
    parallel: int = 32
    tries: int = 6
    backoff_s: float = 0.5
    backoff_max_s: float = 30.0
    connect_s: float = 20.0
    silence_s: float = 60.0
    window_s: float = 60.0
    slowest: int = 1024


def from_environment(env: Mapping[str, str]) -> Settings:
    """Raises FetchError for settings that make no sense."""
    room = env.get(CACHE_BYTES) or ""
    parallel = env.get(PARALLEL) or "32"
    if not parallel.isdecimal() or not 1 <= int(parallel) <= 1024:
        raise FetchError(f"{PARALLEL} is {parallel!r}: must be a number from 1 to 1024")
    try:
        cache_bytes = parse_bytes(room) if room else None
    except ValueError as error:
        raise FetchError(f"{CACHE_BYTES} is {room!r}: {error}") from error
    return Settings(Policy.of(env), _cache(env), cache_bytes, int(parallel))


def room_of(settings: Settings) -> int:
    """How many bytes the cache may hold."""
    if settings.cache_bytes is not None:
        return settings.cache_bytes
    settings.cache.mkdir(parents=True, exist_ok=True)
    found = os.statvfs(settings.cache)
    return found.f_blocks * found.f_frsize // _CACHE_SHARE


def _cache(env: Mapping[str, str]) -> Path:
    """The folder that is named, or this user's own where nobody else can put anything."""
    if env.get(CACHE):
        return Path(env[CACHE])
    folder = Path(tempfile.gettempdir()) / f"kaos-fetch-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid == os.getuid() and status.st_mode & 0o177077 == 0o040000:
        return folder
    return Path(tempfile.mkdtemp(prefix="kaos-fetch-"))
