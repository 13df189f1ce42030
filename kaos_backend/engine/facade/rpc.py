"""gRPC handlers out of plain functions, and waiting on behalf of a caller.

A handler function takes (request, context) and returns a message (or an iterable of them); messages are SDK
classes or ready-made bytes. Errors it raises become statuses.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeAlias, TypeVar
from weakref import WeakSet

import betterproto
import grpc

from kaos_backend.engine.errors import TooManyCalls
from kaos_backend.engine.facade.errors import Cancelled, abort
from kaos_backend.engine.store.store import Store

Message = betterproto.Message | bytes
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Handlers: TypeAlias = dict[str, Handler]
_T = TypeVar("_T")
_POLL_S = 5.0

THREADS = 256
"""Threads of the server. Waiting calls (subscribe, follow, wait) hold one each. No more than this: each that
wakes may open a database connection, and many systems give a process 1024 descriptors."""
# Calls that do not wait, such as the one that ends what the others wait for, always find a thread.
_SPARE_THREADS = 32
_waiting = threading.BoundedSemaphore(THREADS - _SPARE_THREADS)
_parked: WeakSet[grpc.ServicerContext] = WeakSet()
_parked_lock = threading.Lock()


class Service(Protocol):
    """A gRPC service: its full name (``"pfs_v2.API"``) and one handler per method."""

    name: str

    def handlers(self) -> Handlers: ...


def unary(function: Callable[[Any, grpc.ServicerContext], Message], request: type[Any]) -> Handler:
    """One request of class `request`, one response."""
    return grpc.unary_unary_rpc_method_handler(
        _single(function), request_deserializer=request.FromString, response_serializer=bytes
    )


def server_stream(
    function: Callable[[Any, grpc.ServicerContext], Iterable[Message]], request: type[Any]
) -> Handler:
    """One request, any number of responses."""
    return grpc.unary_stream_rpc_method_handler(
        _many(function), request_deserializer=request.FromString, response_serializer=bytes
    )


def client_stream(function: Callable[[Any, grpc.ServicerContext], Message]) -> Handler:
    """Any number of requests, handed over as raw bytes, and one response."""
    return grpc.stream_unary_rpc_method_handler(_single(function), response_serializer=bytes)


def bidirectional(
    function: Callable[[Any, grpc.ServicerContext], Iterable[Message]], request: type[Any]
) -> Handler:
    return grpc.stream_stream_rpc_method_handler(
        _many(function), request_deserializer=request.FromString, response_serializer=bytes
    )


def _single(function: Callable[[Any, grpc.ServicerContext], Message]) -> Callable[..., Message]:
    def handle(request: Any, context: grpc.ServicerContext) -> Message:
        try:
            return function(request, context)
        except grpc.RpcError:
            # Raised by the request stream: the caller broke it off.
            raise
        except Exception as error:
            abort(context, error)

    return handle


def _many(
    function: Callable[[Any, grpc.ServicerContext], Iterable[Message]],
) -> Callable[..., Iterator[Message]]:
    def handle(request: Any, context: grpc.ServicerContext) -> Iterator[Message]:
        try:
            yield from function(request, context)
        except grpc.RpcError:
            raise
        except Exception as error:
            abort(context, error)

    return handle


def wait_until(store: Store, context: grpc.ServicerContext, check: Callable[[], _T | None]) -> _T:
    """Call `check` now and after every committed change until it returns something; return that.

    Raises:
        Cancelled: the caller went away.
        TooManyCalls: too many calls wait already.
    """
    while True:
        version = store.changes.version()
        found = check()
        if found is not None:
            return found
        park(store, context)
        if not context.is_active():
            raise Cancelled("the call was cancelled")
        store.changes.wait(version, _POLL_S)


def park(store: Store, context: grpc.ServicerContext) -> None:
    """Count a call among those that wait, until it ends; its end wakes what waits for a change.

    To be called before each wait; the first one counts.

    Raises:
        Cancelled: the caller went away.
        TooManyCalls: too many calls wait already.
    """
    with _parked_lock:
        if context in _parked:
            return
        _parked.add(context)
    if not _waiting.acquire(blocking=False):
        raise TooManyCalls("too many waiting calls: end some, or try again later")

    def ended() -> None:
        _waiting.release()
        # A cancelled call must not sleep on.
        store.changes.notify()

    if not context.add_callback(ended):
        _waiting.release()
        raise Cancelled("the call was cancelled")
