"""Contents by http and https (RFC 9110), with connections that are used again and redirects looked at one by
one.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import ssl
import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from email.utils import mktime_tz, parsedate_tz
from functools import cache
from http import HTTPStatus
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from kaos_formats.addresses import is_public
from kaos_formats.manifest import ManifestLine
from kaos_pipelines.fetch import guard
from kaos_pipelines.fetch.cache import Said, key_of
from kaos_pipelines.fetch.credentials import Credentials
from kaos_pipelines.fetch.errors import Changed, FetchError, Gone, Transient
from kaos_pipelines.fetch.log import shown
from kaos_pipelines.fetch.remote import Answer, Item
from kaos_pipelines.fetch.settings import Settings

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 10
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_DIGEST = re.compile(r"(?i)\b(sha-256|md5)=:?([A-Za-z0-9+/]+=*):?")
_HEADER_BYTES = 32 << 10
# RFC 9110, 8.8.2.2: a file that changes twice within a second has one time for two contents.
_RELIABLE_S = 2.0


class Web:
    """The `Remote` of http and https. Open until `close`."""

    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        self._settings, self._credentials = settings, credentials
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._proxies = getproxies()

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    def key(self, item: Item) -> str:
        return key_of(item.url.partition("#")[0])

    async def files(self, number: int, line: ManifestLine) -> list[Item]:
        return [Item.of(number, line)]

    @asynccontextmanager
    async def open(self, item: Item, known: Said | None, held: Said, size: int) -> AsyncIterator[Answer]:
        headers = {}
        if known is not None and known.etag:
            headers["If-None-Match"] = known.etag
        elif known is not None and known.last_modified:
            headers["If-Modified-Since"] = known.last_modified
        condition = held.etag if not held.etag.startswith("W/") else ""
        condition = condition or held.last_modified
        if size and (condition or item.sha256):
            headers["Range"] = f"bytes={size}-"
            if condition:
                headers["If-Range"] = condition
        async with self._get(item.url, headers) as response:
            if response.status == HTTPStatus.NOT_MODIFIED and known is not None:
                yield Answer(known, None)
                return
            if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and size:
                raise Changed("it is shorter than what has come of it")
            _check(response)
            start, total = _extent(response)
            said = _said(response.headers, total)
            if start and said.etag and held.etag and said.etag != held.etag:
                raise Changed("it changed while it was fetched")
            if known is not None and not start and known.etag == said.etag != "" and said.etag[0] == '"':
                # It does not know If-None-Match, yet tells the same.
                yield Answer(known, None)
                return
            yield Answer(said, _blocks(response), start, _digests(response.headers))

    async def ask(self, line: ManifestLine) -> Said:
        # Not HEAD: a presigned URL is signed for GET. The answer's body is left behind.
        async with self._get(line.url, {"Range": "bytes=0-0"}) as response:
            if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return _said(response.headers, 0)
            _check(response)
            return _said(response.headers, _extent(response)[1])

    @asynccontextmanager
    async def _get(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer that a URL leads to."""
        url = url.partition("#")[0]
        strict = False
        for _ in range(_MAX_REDIRECTS + 1):
            try:
                response = await self._ask(url, headers, strict)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                raise _failure(error, url) from error
            try:
                location = response.headers.get("Location") if response.status in _REDIRECTS else None
                if location is None:
                    yield response
                    return
            finally:
                # Whoever has read it to its end has given the connection back already.
                response.close()
            strict = strict or await asyncio.to_thread(_is_public, url)
            url = _redirected(url, location)
        raise FetchError(f"more than {_MAX_REDIRECTS} redirects")

    async def _ask(self, url: str, headers: Mapping[str, str], strict: bool) -> aiohttp.ClientResponse:
        parts = urlsplit(url)
        host = parts.hostname or ""
        # What is stored is what the server has, and not a server's compressed form of it.
        sent = {"Accept-Encoding": "identity", "User-Agent": "kaos", **headers}
        if authorization := self._credentials.authorization(host):
            sent["Authorization"] = authorization
        proxy = self._proxies.get(parts.scheme)
        proxy = None if proxy is None or proxy_bypass(host) else proxy
        where: AbstractContextManager[None] = guard.public_only() if strict else nullcontext()
        with where:
            if proxy is not None:
                port = parts.port or (443 if parts.scheme == "https" else 80)
                await asyncio.to_thread(self._look, host, port)
            return await self._session(strict).get(
                URL(url, encoded=url.isascii()), headers=sent, proxy=proxy, allow_redirects=False
            )

    def _look(self, host: str, port: int) -> None:
        """Through a proxy it is the proxy that connects: look at what is known here."""
        try:
            guard.addresses_of(host, port, self._settings.policy)
        except guard.Refused:
            raise
        except OSError:
            # The proxy alone can look it up.
            return

    def _session(self, strict: bool) -> aiohttp.ClientSession:
        # Apart, so that no connection is used again which a stricter look would have refused.
        if strict not in self._sessions:
            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=self._settings.connect_s, sock_read=self._settings.silence_s
            )
            self._sessions[strict] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=_trust(), limit=self._settings.parallel * 2),
                timeout=timeout,
                auto_decompress=False,
                max_line_size=_HEADER_BYTES,
                max_field_size=_HEADER_BYTES,
            )
        return self._sessions[strict]


async def _blocks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for block in response.content.iter_any():
            yield block
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Transient(f"broke off: {_words(error)}") from error


def _check(response: aiohttp.ClientResponse) -> None:
    """Raises FetchError for what is no content."""
    status = response.status
    if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        return
    said = f"status {status} {response.reason or ''}".strip()
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        raise Gone(said)
    if status in _AGAIN:
        raise Transient(said, _retry_after(response.headers.get("Retry-After") or ""))
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise FetchError(f"{said}; give credentials for its host")
    raise FetchError(said)


def _extent(response: aiohttp.ClientResponse) -> tuple[int, int | None]:
    """(first byte, bytes of the whole) of what an answer sends."""
    if response.status == HTTPStatus.OK:
        return 0, response.content_length
    match = _RANGE.fullmatch((response.headers.get("Content-Range") or "").strip())
    if match is None or (response.content_length or 0) > int(match[2]) - int(match[1]) + 1:
        raise Changed("the server sent a part of it without saying which")
    return int(match[1]), None if match[3] == "*" else int(match[3])


def _said(headers: Mapping[str, str], size: int | None) -> Said:
    modified, date = (parsedate_tz(headers.get(name) or "") for name in ("Last-Modified", "Date"))
    reliable = (
        modified is not None and date is not None and mktime_tz(date) - mktime_tz(modified) >= _RELIABLE_S
    )
    return Said(
        size,
        (headers.get("ETag") or "").strip(),
        headers["Last-Modified"].strip() if reliable else "",
        headers.get("x-amz-version-id") or headers.get("x-goog-generation") or "",
    )


def _digests(headers: Mapping[str, str]) -> dict[str, str]:
    """What a server says that the whole content hashes to: RFC 9530, RFC 3230, and Google's header."""
    found: dict[str, str] = {}
    texts = [headers.get(name) or "" for name in ("Repr-Digest", "Digest", "x-goog-hash")]
    for name, value in _DIGEST.findall(", ".join(texts)):
        algorithm = name.lower().replace("-", "")
        try:
            digest = b64decode(value, validate=True).hex()
        except Base64Error:
            continue
        if len(digest) == {"sha256": 64, "md5": 32}[algorithm]:
            found[algorithm] = digest
    return found


def _retry_after(text: str) -> float:
    """Seconds; 0 for what is neither a number nor a date."""
    if text.strip().isdecimal():
        return float(text)
    date = parsedate_tz(text)
    return max(0.0, mktime_tz(date) - time.time()) if date else 0.0


def _redirected(url: str, location: str) -> str:
    there = urljoin(url, location)
    parts = urlsplit(there)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FetchError(f"the server leads to {shown(there)}, which is not http")
    if "@" in parts.netloc:
        raise FetchError("the server leads to a URL with a user and password in it")
    return there


def _is_public(url: str) -> bool:
    """Whether a server is on the internet, as far as it is known here."""
    try:
        found = guard.lookup(urlsplit(url).hostname or "")
    except OSError:
        return True
    return any(map(is_public, found))


def _failure(error: BaseException, url: str) -> FetchError:
    host = urlsplit(url).hostname or ""
    refused = guard.refusal(error)
    if refused is not None:
        return FetchError(f"{host}: {refused}")
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError)):
        return FetchError(f"the certificate of {host} is not to be trusted: {_words(error)}")
    if isinstance(error, (aiohttp.InvalidURL, ValueError)):
        return FetchError(f"{shown(url)} cannot be read as a URL")
    return Transient(f"{host}: {_words(error)}")


def _words(error: BaseException) -> str:
    """What went wrong, in few words; those of the library repeat the URL."""
    if isinstance(error, TimeoutError):
        return "it is silent for too long"
    inner = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "there is no such host, or nobody to ask about it"
    number = getattr(inner, "errno", None)
    if isinstance(inner, OSError) and isinstance(number, int) and 0 < number in errno.errorcode:
        return os.strerror(number)
    text = getattr(inner, "strerror", None) or str(inner) or type(error).__name__
    return str(text)[:200]


@cache
def _trust() -> ssl.SSLContext:
    """The machine's authorities (or those of SSL_CERT_FILE), and those that everybody trusts."""
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
