"""Where connections of this process may lead, decided at the one point through which all of them go.

Whoever can send manifests to a backend of others' must not reach through it what they could not reach
themselves: its files, its machine, its network. Names are looked up by many libraries, answers lead
elsewhere, and what a name leads to changes from one look to the next. So it is not looked at URLs: CPython
tells an audit hook of every `socket.connect`, with the very address that is connected to, and the hook
refuses it (PEP 578). What does not connect through Python's sockets must be told its addresses:
`addresses_of`.

Hooks stay for the life of a process, so this belongs into one that does nothing but fetch; outside of
`enforced` it allows everything.
"""

from __future__ import annotations

import re
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from kaos_formats.addresses import Address, is_public
from kaos_formats.proxies import proxies_of
from kaos_pipelines.fetch.errors import FetchError

PRIVATE = "KAOS_FETCH_PRIVATE"
ALLOW = "KAOS_FETCH_ALLOW"
_HOST_PORT = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]]+)(?::(?P<port>[0-9]{1,5}))?")


class Refused(PermissionError):
    """A connection that the guard does not allow: nothing was sent."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """A network or a host (all addresses that it has) that may be asked, at one port or (None) at all."""

    network: IPv4Network | IPv6Network | None
    host: str
    port: int | None

    def fits(self, address: Address, port: int) -> bool:
        if self.port not in (None, port):
            return False
        if self.network is not None:
            return address in self.network
        return address in lookup(self.host)


@dataclass(frozen=True, slots=True)
class Policy:
    """`private`: everything may be asked, as whoever sends the manifest could do it anyway. Else what is
    public and what `allow` names. `proxies` are the network's own.
    """

    private: bool = True
    allow: tuple[Allowed, ...] = ()
    proxies: tuple[Allowed, ...] = ()

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Policy:
        """What an environment says. Raises FetchError for what is no list of hosts and networks."""
        allow = tuple(_parse(one) for one in re.split(r"[\s,]+", env.get(ALLOW) or "") if one)
        proxies = (_proxy(value) for name, value in proxies_of(env).items() if name.lower() != "no_proxy")
        return cls(env.get(PRIVATE, "1") != "0", allow, tuple(one for one in proxies if one))

    def permits(self, address: Address, port: int) -> bool:
        """Whether a server may be asked; `port` 0: on whatever port."""
        return (self.private and not _public_only.get()) or self._is_named(address, port)

    def _is_named(self, address: Address, port: int) -> bool:
        return is_public(address) or any(one.fits(address, port) for one in (*self.allow, *self.proxies))


_lock = threading.Lock()
_hooked = False
_policy: Policy | None = None
_public_only: ContextVar[bool] = ContextVar("public_only", default=False)


@contextmanager
def enforced(policy: Policy) -> Iterator[None]:
    """All connections of this process keep to `policy`; one policy at a time."""
    global _hooked, _policy
    with _lock:
        if _policy is not None:
            raise RuntimeError("a policy is enforced already")
        if not _hooked:
            sys.addaudithook(_hook)
            _hooked = True
        _policy = policy
    try:
        yield
    finally:
        _policy = None


@contextmanager
def public_only() -> Iterator[None]:
    """What is done in this context was asked for by a public server, and must lead to such."""
    token = _public_only.set(True)
    try:
        yield
    finally:
        _public_only.reset(token)


def addresses_of(host: str, port: int, policy: Policy) -> list[Address]:
    """The addresses of a host that may be asked, best first. Raises Refused if it has others only, and
    OSError if it has none.
    """
    found = lookup(host, port)
    permitted = [one for one in found if policy.permits(one, port)]
    if not permitted:
        raise Refused(why_refused(found[0]))
    return permitted


def why_refused(address: Address | str) -> str:
    if _public_only.get():
        return f"a public server leads to {address}, which is not public"
    return f"{address} is not public, and this backend fetches from there only what {ALLOW} names"


def refusal(error: BaseException | None) -> Refused | None:
    """The refusal that an error came from, which libraries wrap in theirs."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        if isinstance(one, Refused):
            return one
        seen.add(id(one))
        todo += [one.__cause__, one.__context__, getattr(one, "os_error", None), getattr(one, "inner", None)]
        todo += [arg for arg in one.args if isinstance(arg, BaseException)]
        todo += getattr(one, "exceptions", ())
    return None


def _hook(event: str, args: tuple[object, ...]) -> None:
    if event != "socket.connect" or _policy is None or (_policy.private and not _public_only.get()):
        return
    sock, where = args
    family = getattr(sock, "family", None)
    if family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(where, tuple):
        raise Refused("only servers of a network may be asked")
    host, port = str(where[0]), int(where[1])
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        # It would be looked up after this, by the kernel's call itself.
        raise Refused(f"{host} is a name, and only an address can be looked at") from None
    if not _policy.permits(address, port):
        raise Refused(why_refused(address))


def lookup(host: str, port: int = 0) -> list[Address]:
    """The addresses of a host, best first. Raises OSError for one that has none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))


def _parse(text: str) -> Allowed:
    """A network (`10.0.0.0/8`), or a host or an address, with a port or without."""
    try:
        return Allowed(ip_network(text.strip("[]")), "", None)
    except ValueError:
        pass
    match = _HOST_PORT.fullmatch(text)
    if match is None or "/" in text:
        raise FetchError(f"{ALLOW} has {text!r}: write a host, an address or a network (10.0.0.0/8)")
    port = int(match["port"]) if match["port"] else None
    host = match["host"].strip("[]")
    try:
        return Allowed(ip_network(host), "", port)
    except ValueError:
        return Allowed(None, host.lower(), port)


def _proxy(url: str) -> Allowed | None:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        return Allowed(None, parts.hostname, parts.port or 80) if parts.hostname else None
    except ValueError:
        return None
