"""Fetching `add_file.url` sources over http and https. (Those of `file` are read, see `local_path`.)

Whoever may write to the engine has a user's secret, and a machine of one's own has servers of one's own: what
a URL names may be on this machine or in its network. What a server answers may not lead there: a redirect
never goes from a public address to one that is not, and link-local addresses, where clouds hand out
credentials, are never asked. The address that was looked at is the one that is connected to, at every hop.

Through a proxy (``http_proxy``, ``https_proxy``, ``no_proxy``) it is the proxy that finds addresses.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import unquote, unquote_to_bytes, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from kaos_backend.engine.errors import InvalidArgument, Unimplemented, Unknown, disk_full
from kaos_formats.addresses import METADATA, Address, plain

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse
    from urllib3.util import Url

_CLOUD = frozenset({"s3", "gs", "gcs", "azblob", "wasb", "minio", "test-minio"})
_CHUNK_BYTES = 1 << 20
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

Resolve = Callable[[str, int], list[Address]]


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one fetch: seconds to connect, of silence, and in all; bytes; redirects."""

    connect_s: float = 10.0
    silence_s: float = 120.0
    total_s: float = 24 * 3600.0
    size: int = 1 << 40
    redirects: int = 10


def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a host, best first."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def fetch(url: str, room: int, limits: Limits = Limits(), resolve: Resolve = resolve) -> Iterator[bytes]:
    """The content behind a URL, in pieces; redirects are followed. `room`: what the disk has left, bytes.

    Raises:
        Unknown: the server cannot be reached, answers with an error or too slowly, with too much, or leads
            where nobody may be led; or the scheme is unknown.
        InvalidArgument: a ``file`` URL.
        Unimplemented: a cloud store.
        DiskFull: it says that it is larger than the room on the disk.
    """
    import urllib3

    deadline = time.monotonic() + limits.total_s
    place = shown(url)
    try:
        response = _open(url, limits, resolve)
        try:
            if response.status >= 400:
                raise Unknown(f"error retrieving content from {place}: status {response.status}")
            length = getattr(response, "length_remaining", None)
            if length is not None and length > room:
                raise disk_full(f"what {place} sends ({length} bytes)")
            size = 0
            while piece := response.read1(_CHUNK_BYTES):
                size += len(piece)
                if size > limits.size:
                    raise Unknown(f"error retrieving content from {place}: more than {limits.size} bytes")
                if time.monotonic() > deadline:
                    raise Unknown(
                        f"error retrieving content from {place}: not done after {limits.total_s:g} s"
                    )
                yield piece
        finally:
            response.close()
    except (urllib3.exceptions.HTTPError, OSError, UnicodeError) as error:
        raise Unknown(f"error retrieving content from {place}: {error}") from error


def local_path(url: str) -> str | None:
    """The path on this machine that a `file` URL (RFC 8089) names; None for any other.

    Raises:
        InvalidArgument: it names another machine, or more than a path.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme.lower() != "file":
        return None
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise InvalidArgument(
            f"url {shown(url)}: a file URL is file:///PATH of the engine's machine (%3F for ?, %23 for #)"
        )
    return os.fsdecode(unquote_to_bytes(parts.path))


def shown(url: str) -> str:
    """A URL without the password that may be in it.

    Raises:
        Unknown: it is none.
    """
    try:
        parts = urlsplit(url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    except ValueError as error:
        raise Unknown(f"error retrieving content from a URL that cannot be read: {error}") from None


def _open(url: str, limits: Limits, resolve: Resolve) -> BaseHTTPResponse:
    """The answer that a URL leads to, its content not read yet."""
    seen_public = False
    for _ in range(limits.redirects + 1):
        parsed = _parsed(url)
        proxy = _proxy(parsed)
        if proxy is not None:
            response = _through(proxy, parsed, limits)
            # Where that server is nobody told us.
            seen_public = True
        else:
            assert parsed.host is not None
            port = parsed.port or (443 if parsed.scheme == "https" else 80)
            addresses = resolve(parsed.host.strip("[]"), port)
            permitted = [one for one in addresses if why_not(one, seen_public) is None]
            if not permitted:
                why = why_not(addresses[0], seen_public) if addresses else "has no address"
                raise Unknown(f"error retrieving content from {shown(url)}: {parsed.host} {why}")
            response, address = _first(permitted, port, parsed, limits)
            seen_public = seen_public or plain(address).is_global
        location = response.headers.get("Location") if response.status in _REDIRECTS else None
        if location is None:
            return response
        response.close()
        url = urljoin(url, location)
    raise Unknown(f"error retrieving content from {shown(url)}: more than {limits.redirects} redirects")


def _parsed(url: str) -> Url:
    from urllib3.exceptions import LocationParseError
    from urllib3.util import parse_url

    place = shown(url)
    scheme = urlsplit(url).scheme.lower()
    if scheme == "file":
        raise InvalidArgument(
            f"url {place} is refused: what a server answers does not lead to files of the engine's machine"
        )
    if scheme in _CLOUD:
        raise Unimplemented(
            f"url {place}: {scheme} object stores are not built into the embedded engine, which has no "
            "cloud's credentials; use an https URL (a presigned one for what is private)"
        )
    if scheme not in ("http", "https"):
        raise Unknown(f"unrecognized object store: {scheme} (in url {place})")
    try:
        parsed = parse_url(url)
    except LocationParseError:
        # Its words have all of the URL, the password too.
        raise Unknown(f"error retrieving content from {place}: it cannot be read as a URL") from None
    if not parsed.host:
        raise Unknown(f"error retrieving content from {place}: it names no host")
    return parsed


def why_not(address: Address, seen_public: bool) -> str | None:
    """Why an address may not be asked, in words that follow the host's name; None: it may.

    `seen_public`: a public server led to it.
    """
    one = plain(address)
    if one.is_link_local or one in METADATA:
        return f"is at {address}, a link-local address or one where clouds describe the machine"
    if one.is_multicast or one.is_unspecified or (one.is_reserved and not one.is_loopback):
        return f"is at {address}, which is no address of a server"
    if seen_public and not one.is_global:
        return f"is at {address}, which is not public, but a public server led there"
    return None


def _first(addresses: list[Address], port: int, url: Url, limits: Limits) -> tuple[BaseHTTPResponse, Address]:
    """The answer from the first address that can be connected to."""
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

    *others, last = addresses
    for address in others:
        try:
            return _get(address, port, url, limits), address
        except (ConnectTimeoutError, NewConnectionError):
            continue
    return _get(last, port, url, limits), last


def _get(address: Address, port: int, url: Url, limits: Limits) -> BaseHTTPResponse:
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Timeout

    timeout = Timeout(connect=limits.connect_s, read=limits.silence_s)
    host = (url.host or "").strip("[]")
    pool: HTTPConnectionPool
    if url.scheme == "https":
        pool = HTTPSConnectionPool(
            str(address),
            port,
            timeout=timeout,
            ssl_context=_trust(),
            server_hostname=host,
            assert_hostname=host,
        )
    else:
        pool = HTTPConnectionPool(str(address), port, timeout=timeout)
    return pool.urlopen(
        "GET",
        url.request_uri,
        headers={"Host": url.netloc or host, **_headers(url)},
        retries=False,
        redirect=False,
        preload_content=False,
        decode_content=False,
    )


def _through(proxy: str, url: Url, limits: Limits) -> BaseHTTPResponse:
    from urllib3 import ProxyManager, Timeout, make_headers
    from urllib3.util import parse_url

    auth = parse_url(proxy).auth
    manager = ProxyManager(
        proxy,
        proxy_headers=make_headers(proxy_basic_auth=unquote(auth)) if auth else None,
        timeout=Timeout(connect=limits.connect_s, read=limits.silence_s),
        ssl_context=_trust(),
    )
    return manager.urlopen(
        "GET",
        url._replace(auth=None).url,
        headers=_headers(url),
        retries=False,
        redirect=False,
        preload_content=False,
        decode_content=False,
    )


def _proxy(url: Url) -> str | None:
    host = url.host or ""
    return None if proxy_bypass(host) else getproxies().get(url.scheme or "")


def _headers(url: Url) -> dict[str, str]:
    from urllib3 import make_headers

    # What is stored is what the server has, and not a server's compressed form of it.
    headers = {"Accept-Encoding": "identity", "User-Agent": "kaos"}
    if url.auth:
        headers |= make_headers(basic_auth=unquote(url.auth))
    return headers


def _trust() -> ssl.SSLContext:
    """The machine's authorities (or those of SSL_CERT_FILE), and those that everybody trusts."""
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
