"""The front door: what every request must pass before the application sees it, or a byte of its body is read.

In this order: the token, how often it asks, the client's version, where the request comes from, sizes, the
operation and the right to it, its parameters, the kind of body, a place among its like. What is refused here
names the limit.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from kaos_backend import __version__
from kaos_backend.api.admission import Admission
from kaos_backend.api.callers import Callers
from kaos_backend.api.exchange import ClientGone, Exchange, content_length, too_large
from kaos_backend.api.json_body import check_json
from kaos_backend.api.operations import Operation, Operations
from kaos_backend.api.rates import Rates
from kaos_backend.domain.rights import Caller
from kaos_backend.errors import (
    Forbidden,
    HeadersTooLarge,
    InvalidRequest,
    KaosError,
    MethodNotAllowed,
    NotFound,
    UnsupportedMediaType,
    UriTooLong,
    VersionMismatch,
)
from kaos_backend.settings import Settings
from kaos_formats.http_api import API, API_HEADER, VERSION_HEADER

_JSON = "application/json"

_log = logging.getLogger(__name__)
_CLIENT, _API = VERSION_HEADER.lower().encode(), API_HEADER.lower().encode()


class FrontDoor:
    """Plain ASGI around the application; ``document`` gives its OpenAPI document."""

    def __init__(
        self, app: ASGIApp, settings: Settings, callers: Callers, document: Callable[[], Mapping[str, Any]]
    ) -> None:
        self._app = app
        self._limits = settings.limits
        self._hosts = settings.hosts
        self._callers = callers
        self._rates = Rates(settings.limits, time.monotonic)
        self._document = document
        self._operations: Operations | None = None
        self._admission = Admission(settings.limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, self._limits)
        try:
            async with AsyncExitStack() as held:
                caller = await self._admit(scope, exchange, held)
                if caller.right != "owner" and scope["method"] not in ("GET", "HEAD"):
                    # What others change, and who does it.
                    _log.info("%s: %s %a", caller.name, scope["method"], _raw_path(scope).decode("latin-1"))
                await self._app(scope, exchange.receive, exchange.send)
        except KaosError as error:
            # The application answers its own; this one was raised on the way in, or the token has just ended:
            # an answer that has begun is cut off then.
            if not exchange.started:
                await exchange.refuse(error)
        except ClientGone:
            return

    async def _admit(self, scope: Scope, exchange: Exchange, held: AsyncExitStack) -> Caller:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        given: dict[bytes, bytes] = dict(reversed(headers))
        state = scope.setdefault("state", {})
        caller = state["caller"] = self._callers.find(
            given.get(b"authorization", b""), private=state.get("public") is None
        )
        if caller.right != "owner":
            held.enter_context(self._rates.take(caller.name))
            await held.enter_async_context(self._callers.while_valid(caller))
        _check_version(given)
        self._check_origin(given, state["public"].names if state.get("public") else frozenset())
        self._check_sizes(scope, headers)
        operation, workspace = self._operation(scope)
        _check_right(caller, operation, workspace)
        _check_query(scope, operation)
        length = content_length(headers)
        most = self._most(operation, caller)
        if length is not None and length > most:
            raise too_large(most)
        if operation.media_type is not None:
            _check_media_type(given.get(b"content-type", b""), operation.media_type)
        exchange.allow(most)
        if operation.media_type in (_JSON, None):
            # Before there is a place for the call: one that sends slowly must not keep others from theirs.
            await held.enter_async_context(self._admission.take_for(most if length is None else length))
            body = await exchange.body()
            if operation.media_type == _JSON:
                check_json(body, self._limits)
        await held.enter_async_context(self._admission.take(operation.place))
        return caller

    def _check_origin(self, given: Mapping[bytes, bytes], names: frozenset[str]) -> None:
        """Refuses what a browser sends for somebody else's page, and names that only DNS leads here: none of
        ``names``, which the certificate is for.
        """
        host = given.get(b"host", b"").decode("latin-1")
        if not self._is_ours(host, names):
            raise Forbidden(
                f"this backend is not {host!r}",
                hint="ask it as localhost or by its IP address, or name the host in KAOS_HOSTS",
            )
        origin = given.get(b"origin")
        if origin is not None and _authority(origin.decode("latin-1")) != host.lower():
            raise Forbidden(f"a page of {origin.decode('latin-1')!r} may not use this backend")

    def _is_ours(self, host: str, names: frozenset[str]) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            any_label = "*." + name.partition(".")[2]
            if name == "localhost" or name in self._hosts or name in names or any_label in names:
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _check_sizes(self, scope: Scope, headers: list[tuple[bytes, bytes]]) -> None:
        limits = self._limits
        path = _raw_path(scope)
        for what, found, most in (
            ("path", len(path), limits.path_bytes),
            ("query", len(scope["query_string"]), limits.query_bytes),
        ):
            if found > most:
                raise UriTooLong(f"the {what} has {found} bytes, more than {most}", limit=most)
        if len(headers) > limits.headers:
            raise HeadersTooLarge(
                f"the request has {len(headers)} headers, more than {limits.headers}", limit=limits.headers
            )
        size = sum(len(name) + len(value) for name, value in headers)
        if size > limits.headers_bytes:
            raise HeadersTooLarge(
                f"the headers have {size} bytes, more than {limits.headers_bytes}", limit=limits.headers_bytes
            )

    def _operation(self, scope: Scope) -> tuple[Operation, str | None]:
        if self._operations is None:
            self._operations = Operations(self._document())
        found, workspace = self._operations.at(scope["path"])
        what = f"{scope['method']} {scope['path']}"
        if not found:
            raise NotFound(f"nothing is at {what}", hint="docs/api.md lists what there is")
        if scope["method"] not in found:
            raise MethodNotAllowed(f"{what}: no such method here", allowed=sorted(found))
        return found[scope["method"]], workspace

    def _most(self, operation: Operation, caller: Caller) -> int:
        if operation.media_type is None:
            return 0
        if operation.media_type == _JSON:
            return self._limits.body_bytes
        of_tokens = self._limits.upload_bytes if caller.right == "owner" else self._limits.token_upload_bytes
        return min(self._limits.upload_bytes, of_tokens)


def _raw_path(scope: Scope) -> bytes:
    """As it was sent: what is decoded may have anything in it."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw


def _check_right(caller: Caller, operation: Operation, workspace: str | None) -> None:
    """Raises NotAllowed."""
    if operation.scope == "any":
        caller.check(operation.right)
    else:
        caller.check_in(operation.right, workspace)


def _check_version(given: Mapping[bytes, bytes]) -> None:
    """Raises VersionMismatch for a client of another API; without that, of another version."""
    client = given.get(_CLIENT, __version__.encode()).decode("latin-1")
    api = given.get(_API)
    if api == str(API).encode() or (api is None and client == __version__):
        return
    spoken = "" if api is None else f" and speaks version {api.decode('latin-1')} of the API, not {API}"
    raise VersionMismatch(
        f"this backend is kaos {__version__}, the client is {client}{spoken}",
        hint="`kaos down`, then repeat the command: it starts a backend of its own version",
        backend=__version__,
        client=client,
    )


def _check_query(scope: Scope, operation: Operation) -> None:
    """Refuses parameters that the operation does not have, or has once. Raises InvalidRequest."""
    text = scope["query_string"].decode("latin-1")
    names = [name for name, _ in parse_qsl(text, keep_blank_values=True)]
    for name in names:
        if name not in operation.query:
            takes = ", ".join(sorted(operation.query)) or "none"
            raise InvalidRequest(f"unknown query parameter {name!r}", hint=f"this request takes: {takes}")
        if names.count(name) > 1:
            raise InvalidRequest(f"the query parameter {name!r} is given more than once")


def _check_media_type(given: bytes, wanted: str) -> None:
    """A page can make a browser send text/plain or a form without asking; those never mean us."""
    found = given.decode("latin-1").partition(";")[0].strip().lower()
    if found != wanted:
        raise UnsupportedMediaType(
            f"the body is {found or 'of no type'}, not {wanted}", hint=f"send `Content-Type: {wanted}`"
        )


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
