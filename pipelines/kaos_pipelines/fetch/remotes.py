"""Which remote reads which URL; each is made when the first line needs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kaos_pipelines.fetch.credentials import Credentials
from kaos_pipelines.fetch.remote import Remote
from kaos_pipelines.fetch.settings import Settings


class Remotes:
    """`repositories`: where those of git are kept; None where contents are not asked for."""

    def __init__(
        self, settings: Settings, credentials: Credentials, repositories: Path | None = None
    ) -> None:
        self._settings, self._credentials, self._repositories = settings, credentials, repositories
        self._made: dict[str, Remote] = {}

    def of(self, scheme: str) -> Remote:
        kind = scheme.partition("+")[0]
        kind = kind if kind in ("git", "file") else "web" if kind in ("http", "https") else "objects"
        if kind not in self._made:
            self._made[kind] = self._make(kind)
        return self._made[kind]

    def _make(self, kind: str) -> Remote:
        # Each has imports of its own that a manifest without such lines does without.
        if kind == "web":
            from kaos_pipelines.fetch.web import Web

            return Web(self._settings, self._credentials)
        if kind == "git":
            from kaos_pipelines.fetch.gitrepo import Git

            return Git(self._settings, self._credentials, self._repositories)
        if kind == "file":
            from kaos_pipelines.fetch.local import Local

            return Local(self._settings)
        from kaos_pipelines.fetch.objects import Objects

        return Objects(self._settings, self._credentials)

    async def close(self) -> None:
        for remote in self._made.values():
            await remote.close()


@asynccontextmanager
async def remotes(
    settings: Settings, credentials: Credentials, repositories: Path | None = None
) -> AsyncIterator[Remotes]:
    """Remotes that are closed in the end."""
    made = Remotes(settings, credentials, repositories)
    try:
        yield made
    finally:
        await made.close()
