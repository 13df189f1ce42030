"""Calls of git, which connects by itself: it is told the addresses that it may ask, and what it is shown
there.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from kaos_formats.addresses import Address
from kaos_pipelines.fetch import guard
from kaos_pipelines.fetch.credentials import Credentials
from kaos_pipelines.fetch.errors import FetchError, Gone, Transient
from kaos_pipelines.fetch.guard import PRIVATE
from kaos_pipelines.fetch.settings import Settings

# http.curloptResolve, by which it is told addresses.
_SINCE = (2, 37)
_VERSION = re.compile(r"git version (\d+)\.(\d+)")
_GONE = re.compile(
    r"not found|does not appear to be a git repository|does not exist|not our ref", re.IGNORECASE
)
_DENIED = re.compile(
    r"authentication failed|could not read (?:username|password)|terminal prompts disabled|error: 40[13]",
    re.IGNORECASE,
)
_ENDING = re.compile(r"^(?:fatal|error|remote): *", re.MULTILINE)


class GitCalls:
    """Git with the settings of a fetch."""

    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        self._settings, self._credentials = settings, credentials
        self._version: tuple[int, int] | None = None

    async def run(self, *arguments: str, url: str = "", given: bytes = b"") -> bytes:
        """What a call prints; `url`: that of the server that it asks. Raises FetchError, by what it says."""
        process = await self.start(*arguments, url=url)
        out, error = await process.communicate(given)
        if process.returncode:
            raise _failure(error.decode("utf-8", "replace"))
        return out

    async def start(self, *arguments: str, url: str = "") -> asyncio.subprocess.Process:
        env = await self._environment(url)
        pipe = asyncio.subprocess.PIPE
        try:
            return await asyncio.create_subprocess_exec(
                "git", "--literal-pathspecs", *arguments, stdin=pipe, stdout=pipe, stderr=pipe, env=env
            )
        except FileNotFoundError as error:
            raise FetchError("git is not installed here, and git+… URLs need it") from error

    async def _environment(self, url: str) -> dict[str, str]:
        policy = self._settings.policy
        env = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "KAOS_"))}
        env |= {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "LC_ALL": "C"}
        env["GIT_ALLOW_PROTOCOL"] = "file:http:https" if policy.private else "http:https"
        if not policy.private:
            # What the backend's user has set for itself is not for others.
            env |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        config = {"gc.auto": "0", "maintenance.auto": "false", "core.hooksPath": os.devnull}
        if url:
            config |= await self._network(url)
        env["GIT_CONFIG_COUNT"] = str(len(config))
        for number, (name, value) in enumerate(config.items()):
            env |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        return env

    async def _network(self, url: str) -> Mapping[str, str]:
        parts = urlsplit(url)
        if parts.scheme == "file":
            if not self._settings.policy.private:
                raise FetchError(f"this backend fetches no files of its own machine ({PRIVATE}=0)")
            return {}
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        config = {
            "http.lowSpeedLimit": str(self._settings.slowest),
            "http.lowSpeedTime": str(max(1, int(self._settings.silence_s))),
        }
        if authorization := self._credentials.authorization(host):
            config[f"http.{parts.scheme}://{parts.netloc}/.extraHeader"] = f"Authorization: {authorization}"
        if not self._settings.policy.private:
            await self._must_be_new()
            config["http.followRedirects"] = "false"
            permitted = await asyncio.to_thread(self._permitted, host, port, parts.scheme)
            if permitted:
                config["http.curloptResolve"] = f"{host}:{port}:{','.join(map(_in_url, permitted))}"
        return config

    def _permitted(self, host: str, port: int, scheme: str) -> list[Address]:
        """The addresses to ask; none where only a proxy can tell."""
        try:
            return guard.addresses_of(host, port, self._settings.policy)
        except guard.Refused as error:
            raise FetchError(f"{host}: {error}") from error
        except OSError as error:
            if getproxies().get(scheme) and not proxy_bypass(host):
                return []
            raise Transient(f"{host}: there is no such host, or nobody to ask about it") from error

    async def _must_be_new(self) -> None:
        if self._version is None:
            found = _VERSION.match((await self.run("version")).decode())
            self._version = (int(found[1]), int(found[2])) if found else (0, 0)
        if self._version < _SINCE:
            needed = ".".join(map(str, _SINCE))
            raise FetchError(f"git is older than {needed}, and cannot be told which addresses it may ask")


def clear_locks(repository: Path) -> None:
    """Remove what a git that was killed left locked; nobody else is in the repository."""
    for path in (*repository.glob("*.lock"), *repository.glob("objects/pack/tmp_*")):
        path.unlink(missing_ok=True)


def _in_url(address: Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)


def _failure(said: str) -> FetchError:
    lines = [_ENDING.sub("", line).strip() for line in said.splitlines() if line.strip()]
    words = "; ".join(dict.fromkeys(lines))[:300] or "git failed"
    if _DENIED.search(said):
        return FetchError(f"not permitted: {words}; give credentials for its host")
    if _GONE.search(said):
        return Gone(words)
    return Transient(words)
