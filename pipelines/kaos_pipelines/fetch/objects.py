"""Contents and folders of object stores (s3, gs, az) through fsspec's plug-ins, in ranges that follow each
other.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from kaos_formats.manifest import ManifestLine
from kaos_pipelines.fetch import clouds, guard
from kaos_pipelines.fetch.cache import Said, key_of
from kaos_pipelines.fetch.credentials import Credentials
from kaos_pipelines.fetch.errors import Changed, FetchError, Gone, Transient
from kaos_pipelines.fetch.remote import Answer, Item
from kaos_pipelines.fetch.settings import Settings

_RANGE_BYTES = 4 << 20
# The names that the plug-ins' libraries have for a server that is not there right now.
_AWAY = frozenset(
    {
        "ConnectTimeoutError", "ReadTimeoutError", "EndpointConnectionError", "ConnectionClosedError",
        "HTTPClientError", "ResponseStreamingError", "IncompleteReadError", "ServiceRequestError",
        "ServiceResponseError", "ClientPayloadError", "ServerDisconnectedError", "ClientConnectorError",
        "ClientOSError", "TransportError", "ChecksumError",
    }
)  # fmt: skip
_PERMANENT = frozenset({errno.EINVAL, errno.EACCES, errno.ENOTDIR, errno.EISDIR})
_SERVER_ERROR = 500
_TOO_MANY = 429


class Objects:
    """The `Remote` of object stores. Open until `close`."""

    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        self._settings, self._credentials = settings, credentials
        self._clouds: dict[str, clouds.Cloud] = {}
        self._connecting = asyncio.Lock()

    async def close(self) -> None:
        for cloud in self._clouds.values():
            with suppress(Exception):
                await cloud.close()

    def key(self, item: Item) -> str:
        return key_of(self._clouds[clouds.account(item.url)].owner, item.url)

    async def files(self, number: int, line: ManifestLine) -> list[Item]:
        cloud = await self._cloud(line.url)
        if not line.is_folder:
            return [Item.of(number, line)]
        found = await self._listed(cloud, line)
        base = line.url.rstrip("/")
        return [
            Item(number, f"{base}/{below}", line.folder + below, size=said.size, said=said)
            for below, said in found.items()
        ]

    @asynccontextmanager
    async def open(self, item: Item, known: Said | None, held: Said, size: int) -> AsyncIterator[Answer]:
        cloud = await self._cloud(item.url)
        info = None if item.said is not None else await self._info(cloud, item.url)
        said = item.said if info is None else _said(info)
        assert said is not None
        if known is not None and said.is_other_than(known) is False:
            yield Answer(said, None)
            return
        start = size if size and held.etag and held.etag == said.etag else 0
        yield Answer(said, self._blocks(cloud, item, said, start), start, _digests(info or {}))

    async def ask(self, line: ManifestLine) -> Said:
        cloud = await self._cloud(line.url)
        if not line.is_folder:
            return _said(await self._info(cloud, line.url))
        found = await self._listed(cloud, line)
        return together(found)

    async def _cloud(self, url: str) -> clouds.Cloud:
        account = clouds.account(url)
        async with self._connecting:
            if account not in self._clouds:
                with _translated():
                    self._clouds[account] = await clouds.connect(url, self._settings, self._credentials)
        return self._clouds[account]

    async def _info(self, cloud: clouds.Cloud, url: str) -> Mapping[str, Any]:
        with _translated():
            info: Mapping[str, Any] = await cloud.system._info(url, refresh=True)
        if info.get("type") != "file":
            raise FetchError(
                f"it is a folder: end its path with a slash ({urlsplit(url).path.rsplit('/')[-1]}/)"
            )
        return info

    async def _listed(self, cloud: clouds.Cloud, line: ManifestLine) -> dict[str, Said]:
        """The files below a folder by their paths there, sorted."""
        base = line.url.rstrip("/")
        with _translated():
            stripped = str(cloud.system._strip_protocol(base)).rstrip("/")
            found: Mapping[str, Mapping[str, Any]] = await cloud.system._find(base, detail=True)
        # What ends in a slash marks a folder in consoles of the web.
        files = {
            name.removeprefix(stripped + "/"): _said(info)
            for name, info in sorted(found.items())
            if info.get("type") == "file" and name.startswith(stripped + "/") and not name.endswith("/")
        }
        if not files:
            raise Gone("there is no file in that folder, or no such folder")
        return files

    async def _blocks(self, cloud: clouds.Cloud, item: Item, said: Said, start: int) -> AsyncIterator[bytes]:
        """One range comes while the one before is written."""
        size, path = said.size or 0, item.url

        async def part(at: int) -> bytes:
            with _translated():
                data: bytes = await cloud.system._cat_file(path, start=at, end=min(at + _RANGE_BYTES, size))
            if len(data) != min(_RANGE_BYTES, size - at):
                raise Transient(f"sent {len(data)} bytes in place of {min(_RANGE_BYTES, size - at)}")
            return data

        md5 = hashlib.md5(usedforsecurity=False) if start == 0 and _is_md5(said.etag) else None
        coming = asyncio.create_task(part(start)) if start < size else None
        try:
            while coming is not None:
                data = await coming
                start += len(data)
                coming = asyncio.create_task(part(start)) if start < size else None
                if md5 is not None:
                    md5.update(data)
                yield data
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
        if md5 is not None and md5.hexdigest() == said.etag.strip('"'):
            return
        # Ranges of two versions make a content that never was.
        if _said(await self._info(cloud, item.url)).is_other_than(said):
            raise Changed("it changed while it was fetched")


def together(files: Mapping[str, Said]) -> Said:
    """What is said of a folder: what is said of all its files."""
    total = sum(said.size or 0 for said in files.values())
    marks = [
        f"{name}\0{said.etag or said.last_modified}\0{said.size}" for name, said in sorted(files.items())
    ]
    return Said(total, key_of(*marks))


def _said(info: Mapping[str, Any]) -> Said:
    modified = info.get("LastModified") or info.get("updated") or info.get("last_modified") or ""
    return Said(
        int(info["size"]),
        str(info.get("ETag") or info.get("etag") or "").strip('"'),
        modified.isoformat() if isinstance(modified, datetime) else str(modified),
        str(info.get("VersionId") or info.get("generation") or info.get("version_id") or ""),
    )


def _digests(info: Mapping[str, Any]) -> dict[str, str]:
    """What the stores of Google and Microsoft say of a content."""
    found = info.get("md5Hash") or (info.get("content_settings") or {}).get("content_md5")
    if not found:
        return {}
    try:
        return {
            "md5": bytes(found).hex() if not isinstance(found, str) else b64decode(found, validate=True).hex()
        }
    except (Base64Error, TypeError, ValueError):
        return {}


def _is_md5(etag: str) -> bool:
    return len(etag) == 32 and all(character in "0123456789abcdef" for character in etag)


class _translated:
    """What the plug-ins' libraries raise, as this package's errors."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, (FetchError, ImportError)) or not isinstance(error, Exception):
            return
        refused = guard.refusal(error)
        if refused is not None:
            raise FetchError(str(refused)) from error
        text = str(error).partition("\n")[0][:200] or type(error).__name__
        if isinstance(error, FileNotFoundError):
            raise Gone("there is no such object") from error
        denied = isinstance(error, PermissionError) or text.startswith("Forbidden")
        if denied or "Credentials" in type(error).__name__:
            raise FetchError(f"not permitted: {text}; give credentials for it") from error
        code = getattr(error, "code", None) or getattr(error, "status_code", None)
        status = int(str(code)) if str(code).isdecimal() else 0
        if (
            (isinstance(error, (OSError, TimeoutError)) and getattr(error, "errno", None) not in _PERMANENT)
            or type(error).__name__ in _AWAY
            or status >= _SERVER_ERROR
            or status == _TOO_MANY
        ):
            raise Transient(text) from error
        raise FetchError(f"{type(error).__name__}: {text}") from error
