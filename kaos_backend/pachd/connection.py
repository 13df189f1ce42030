"""One SDK client on the current engine: made anew when the engine has moved; safe calls are retried."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import grpc
from grpc_interceptor import ClientInterceptor
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps
from pachyderm_sdk.interceptor import MetadataClientInterceptor

from kaos_backend import errors
from kaos_backend.pachd.errors import never_connected, translate

T = TypeVar("T")

_log = logging.getLogger(__name__)

# Back-off short enough that an engine which was just restarted on its old port is found at once; no HTTP
# proxy between two processes of one machine; a subchannel pool of its own so that no other channel's
# back-off is inherited.
_LOOPBACK_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", 24 * 1024 * 1024),
    ("grpc.max_send_message_length", 24 * 1024 * 1024),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.primary_user_agent", "pachyderm-sdk"),
]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a pachd listens. ``address`` is ``host:port`` for the embedded engine, a pachd address (``grpc://…``)
    for a remote one. ``generation`` changes whenever the engine behind it was started anew.
    """

    address: str
    token: str | None
    generation: int
    embedded: bool


class Engine(Protocol):
    """Whoever knows where pachd is and can bring it back."""

    def current(self) -> Endpoint:
        """The endpoint as last known; raises EngineUnavailable if there never was one."""

    def ensure(self) -> Endpoint:
        """Checks that the engine lives and starts it if not; raises EngineUnavailable."""


class _LoopbackClient(Client):
    """The SDK's client with channel options for a server on this machine."""

    def _init_api(self) -> None:
        channel = grpc.insecure_channel(self.address, options=_LOOPBACK_OPTIONS)
        self._channel = grpc.intercept_channel(channel, MetadataClientInterceptor(self._grpc_metadata))
        super()._init_api()


class _CaptureCall(ClientInterceptor):
    """Keeps the call object of a stream, which the SDK's generators hide, so that it can be canceled."""

    def __init__(self) -> None:
        self.call: Any = None

    def intercept(self, method: Callable[..., Any], request: Any, call_details: Any) -> Any:
        self.call = method(request, call_details)
        return self.call


@dataclass(frozen=True, slots=True)
class TransactionStubs:
    """The SDK's stubs whose calls are appended to one transaction."""

    pfs: Any
    pps: Any


class Connection:
    """Calls through the SDK. Thread-safe; raises KaosErrors only."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._endpoint: Endpoint | None = None
        self._client: Client | None = None

    @property
    def address(self) -> str:
        return self._engine.current().address

    def client(self) -> Client:
        """The client on the engine's current endpoint."""
        endpoint = self._engine.current()
        with self._lock:
            if self._client is None or endpoint != self._endpoint:
                self._client = _connect(endpoint)
                self._endpoint = endpoint
            return self._client

    def read(self, call: Callable[[Client], T]) -> T:
        """Runs an idempotent call; if the engine does not answer it is brought back and asked once more."""
        try:
            return call(self.client())
        except (grpc.RpcError, ConnectionError) as error:
            translated = translate(error)
            if not isinstance(translated, errors.EngineUnavailable):
                raise translated from error
            _log.warning("engine does not answer, bringing it back: %s", translated.message)
        self._engine.ensure()
        try:
            return call(self.client())
        except (grpc.RpcError, ConnectionError) as error:
            raise translate(error) from error

    def write(self, call: Callable[[Client], T]) -> T:
        """Runs a call that changes something: sent a second time only if it never reached the engine."""
        try:
            return call(self.client())
        except (grpc.RpcError, ConnectionError) as error:
            if not never_connected(error):
                raise translate(error) from error
        self._engine.ensure()
        try:
            return call(self.client())
        except (grpc.RpcError, ConnectionError) as error:
            raise translate(error) from error

    def stream(self, call: Callable[[Client], Iterator[T]]) -> Iterator[T]:
        """A server stream; opening it is a ``read``, a break later is an error."""

        def opened(client: Client) -> tuple[Iterator[T], list[T]]:
            iterator = iter(call(client))
            return iterator, [item for item in [next(iterator, None)] if item is not None]

        iterator, first = self.read(opened)
        yield from first
        try:
            yield from iterator
        except (grpc.RpcError, ConnectionError) as error:
            raise translate(error) from error

    def in_transaction(self, transaction_id: str) -> TransactionStubs:
        """Stubs of their own instead of the client's ``transaction_id``, which other threads would share."""
        interceptor = MetadataClientInterceptor([("pach-transaction", transaction_id)])
        channel = grpc.intercept_channel(self.client()._channel, interceptor)
        return TransactionStubs(pfs=pfs.ApiStub(channel), pps=pps.ApiStub(channel))

    def cancelable_pps(self) -> tuple[Any, _CaptureCall]:
        """A pps stub whose latest call can be canceled from another thread."""
        capture = _CaptureCall()
        return pps.ApiStub(grpc.intercept_channel(self.client()._channel, capture)), capture


def _connect(endpoint: Endpoint) -> Client:
    if not endpoint.embedded:
        return Client.from_pachd_address(endpoint.address, auth_token=endpoint.token or "")
    host, _, port = endpoint.address.rpartition(":")
    return _LoopbackClient(host=host, port=int(port), auth_token=endpoint.token)
