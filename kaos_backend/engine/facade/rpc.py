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

from kaos_backend.engine.facade.errors import Cancelled, abort
from kaos_backend.engine.facade.pace import Stalls, take_place
from kaos_backend.engine.store.store import Store

Message = betterproto.Message | bytes
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Handlers: TypeAlias = dict[str, Handler]
_T = TypeVar("_T")
_R = TypeVar("_R")
_Unary: TypeAlias = Callable[[_R, grpc.ServicerContext], Message]
_Stream: TypeAlias = Callable[[_R, grpc.ServicerContext], Iterator[Message]]
_POLL_S = 5.0
# How long a collection waits for a reader.
_PATIENCE_S = 30.0
_stalls = Stalls()
_woken: WeakSet[grpc.ServicerContext] = WeakSet()
_woken_lock = threading.Lock()


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
    function: Callable[[Any, grpc.ServicerContext], Iterable[Message]],
    request: type[Any],
    patient: bool = False,
) -> Handler:
    """One request, any number of responses. `patient`: the client may take as long as it likes over one."""
    return grpc.unary_stream_rpc_method_handler(
        _many(function, patient), request_deserializer=request.FromString, response_serializer=bytes
    )


def client_stream(function: Callable[[Any, grpc.ServicerContext], Message]) -> Handler:
    """Any number of requests, handed over as raw bytes, and one response."""

    def receive(messages: Iterator[Any], context: grpc.ServicerContext) -> Message:
        take_place(context)
        return function(_stalls.received(messages, context), context)

    return grpc.stream_unary_rpc_method_handler(_single(receive), response_serializer=bytes)


def bidirectional(
    function: Callable[[Any, grpc.ServicerContext], Iterable[Message]], request: type[Any]
) -> Handler:

    def converse(messages: Iterator[Any], context: grpc.ServicerContext) -> Iterable[Message]:
        return function(_stalls.received(messages, context), context)

    return grpc.stream_stream_rpc_method_handler(
        _many(converse), request_deserializer=request.FromString, response_serializer=bytes
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
    patient: bool = False,
) -> Callable[..., Iterator[Message]]:
    def handle(request: Any, context: grpc.ServicerContext) -> Iterator[Message]:
        try:
            take_place(context)
            messages = function(request, context)
            yield from messages if patient else _stalls.sent(messages, context)
        except grpc.RpcError:
            raise
        except Exception as error:
            abort(context, error)

    return handle


def reads(store: Store, function: Callable[[_R, grpc.ServicerContext], Iterable[Message]]) -> _Stream[_R]:
    """A stream of what is stored, which a collection lets end; not one whose client has come to a halt."""

    def stream(request: _R, context: grpc.ServicerContext) -> Iterator[Message]:
        with store.leases.take(_PATIENCE_S):
            yield from function(request, context)

    return stream


def refers(store: Store, function: Callable[[_R, grpc.ServicerContext], Message]) -> _Unary[_R]:
    """A call that reads what is stored and refers to it anew: a collection comes before it or after it."""

    def call(request: _R, context: grpc.ServicerContext) -> Message:
        with store.leases.take():
            return function(request, context)

    return call


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
    """Count a call among those that last; its end wakes what waits for a change. Called before each wait.

    Raises:
        Cancelled: the caller went away.
        TooManyCalls: too many calls last already.
    """
    take_place(context)
    with _woken_lock:
        if context in _woken:
            return
        _woken.add(context)
    # A cancelled call must not sleep on.
    if not context.add_callback(store.changes.notify):
        raise Cancelled("the call was cancelled")
