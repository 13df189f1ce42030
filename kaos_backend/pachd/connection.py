"""One SDK client on the current engine: made anew when the engine has moved; safe calls are retried."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from grpc_interceptor import ClientInterceptor
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps
from pachyderm_sdk.interceptor import MetadataClientInterceptor

from kaos_backend import errors
from kaos_backend.pachd.endpoint import Endpoint, Engine
from kaos_backend.pachd.errors import never_connected, translate
from kaos_formats.messages import remember_types

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


class _LoopbackClient(Client):
    """The SDK's client for a server on this machine; over its Unix socket if it has one."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._target = f"unix:{endpoint.socket}" if endpoint.socket else endpoint.address
        host, _, port = endpoint.address.rpartition(":")
        super().__init__(host=host, port=int(port), auth_token=endpoint.token)

    def _init_api(self) -> None:
        channel = grpc.insecure_channel(self._target, options=_LOOPBACK_OPTIONS)
        self._channel = grpc.intercept_channel(channel, MetadataClientInterceptor(self._grpc_metadata))
        super()._init_api()


@dataclass(frozen=True, slots=True)
class TransactionStubs:
    """The SDK's stubs whose calls are appended to one transaction."""

    pfs: Any
    pps: Any


@dataclass(eq=False, slots=True)
class _Link:
    """A client on one endpoint and how many calls use it right now."""

    endpoint: Endpoint
    client: Client
    calls: int = 0


class Connection:
    """Calls through the SDK. Thread-safe; raises KaosErrors only."""

    def __init__(self, engine: Engine) -> None:
        remember_types()
        self._engine = engine
        # Entered again by the thread that holds it when the garbage collector ends an abandoned stream there.
        self._lock = threading.RLock()
        self._link: _Link | None = None

    @property
    def address(self) -> str:
        return self._engine.current().address

    @property
    def embedded(self) -> bool:
        """Whether the engine is on this machine, and ours."""
        return self._engine.current().embedded

    @property
    def hands_over(self) -> bool:
        """Whether files of this machine can be handed to the engine, and by it."""
        return bool(self._engine.current().socket)

    @contextmanager
    def client(self) -> Iterator[Client]:
        """The client on the engine's current endpoint, for calls made within the block.

        One on an endpoint that the engine has left is closed with the last block that uses it.
        """
        endpoint = self._engine.current()
        with self._lock:
            if self._link is None or self._link.endpoint != endpoint:
                left, self._link = self._link, _Link(endpoint, _connect(endpoint))
                if left is not None and not left.calls:
                    left.client._channel.close()
            link = self._link
            link.calls += 1
        try:
            yield link.client
        finally:
            with self._lock:
                link.calls -= 1
                if link is not self._link and not link.calls:
                    link.client._channel.close()

    def read(self, call: Callable[[Client], T]) -> T:
        """Runs an idempotent call; if the engine does not answer it is brought back and asked once more."""
        try:
            return self._once(call)
        except (grpc.RpcError, ConnectionError) as error:
            translated = translate(error)
            if not isinstance(translated, errors.EngineUnavailable):
                raise translated from error
            _log.warning("engine does not answer, bringing it back: %s", translated.message)
        self._engine.ensure()
        try:
            return self._once(call)
        except (grpc.RpcError, ConnectionError) as error:
            raise translate(error) from error

    def write(self, call: Callable[[Client], T]) -> T:
        """Runs a call that changes something: sent a second time only if it never reached the engine."""
        try:
            return self._once(call)
        except (grpc.RpcError, ConnectionError) as error:
            if not never_connected(error):
                raise translate(error) from error
        self._engine.ensure()
        try:
            return self._once(call)
        except (grpc.RpcError, ConnectionError) as error:
            raise translate(error) from error

    def stream(self, call: Callable[[Client], Iterator[T]]) -> Iterator[T]:
        """A server stream; opening it is a ``read``, a break later is an error."""
        with ExitStack() as using:

            def opened(_: Client) -> tuple[Iterator[T], list[T]]:
                # Held until the stream's end, not only until its first item.
                iterator = iter(call(using.enter_context(self.client())))
                return iterator, [item for item in [next(iterator, None)] if item is not None]

            iterator, first = self.read(opened)
            yield from first
            try:
                yield from iterator
            except (grpc.RpcError, ConnectionError) as error:
                raise translate(error) from error

    def _once(self, call: Callable[[Client], T]) -> T:
        with self.client() as client:
            return call(client)


class _InTransaction(ClientInterceptor):
    """Names the transaction, and no more.

    The SDK's own interceptor, which could do that too, takes every error for one of gRPC's, and the client's
    has by then made a ConnectionError of some.
    """

    def __init__(self, transaction_id: str) -> None:
        self._header = ("pach-transaction", transaction_id)

    def intercept(self, method: Callable[..., Any], request: Any, call_details: Any) -> Any:
        metadata = [*(call_details.metadata or ()), self._header]
        return method(request, call_details._replace(metadata=metadata))


def in_transaction(client: Client, transaction_id: str) -> TransactionStubs:
    """Stubs of their own instead of the client's ``transaction_id``, which other threads would share."""
    channel = grpc.intercept_channel(client._channel, _InTransaction(transaction_id))
    return TransactionStubs(pfs=pfs.ApiStub(channel), pps=pps.ApiStub(channel))


def read_by_hand(client: Client, method: str, read: Callable[[bytes], Any]) -> Any:
    """A streaming call of the SDK's client whose answers do not become the SDK's classes: see ``wire``."""
    return client._channel.unary_stream(method, request_serializer=bytes, response_deserializer=read)


def _connect(endpoint: Endpoint) -> Client:
    if not endpoint.embedded:
        return Client.from_pachd_address(endpoint.address, auth_token=endpoint.token or "")
    return _LoopbackClient(endpoint)
