"""The gRPC server: services, the token that guards them, and an answer for everything not built."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from kaos_backend.engine.errors import FailedPrecondition
from kaos_backend.engine.facade.pace import THREADS
from kaos_backend.engine.facade.rpc import Handler, Service

if TYPE_CHECKING:
    _RouterBase = grpc.GenericRpcHandler[Any, Any]
    _InterceptorBase = grpc.ServerInterceptor[Any, Any]
else:
    _RouterBase = grpc.GenericRpcHandler
    _InterceptorBase = grpc.ServerInterceptor

MESSAGE_BYTES = 21 << 20
"""What both sides may send in one message: Pachyderm's 20 MiB and some room for what surrounds a payload."""
AUTH_OFF = "the auth service is not activated"
_AUTH_PREFIX = "/auth_v2.API/"
_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),
    ("grpc.keepalive_permit_without_calls", 1),
)


def build_server(
    services: Iterable[Service],
    token: str,
    host: str = "127.0.0.1",
    port: int = 0,
    socket: Path | None = None,
) -> tuple[grpc.Server, int]:
    """A server, not started yet, and the port of `host` it is bound to (port 0: any free one).

    It also listens on the Unix socket `socket`, whose folder lets nobody else in.

    Raises:
        FailedPrecondition: the port is taken.
    """
    server = grpc.server(
        ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="grpc"),
        interceptors=[_TokenInterceptor(token)],
        options=_OPTIONS,
    )
    server.add_generic_rpc_handlers((_Router(services),))
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        bound = 0
        cause: Exception | None = error
    else:
        cause = None
    if bound == 0:
        raise FailedPrecondition(
            f"port {port} of {host} is in use: stop what listens there, or choose another port"
        ) from cause
    if socket is not None:
        server.add_insecure_port(f"unix:{socket}")
    return server, bound


class _Router(_RouterBase):
    def __init__(self, services: Iterable[Service]) -> None:
        self._handlers: dict[str, Handler] = {}
        for service in services:
            for method, handler in service.handlers().items():
                self._handlers[f"/{service.name}/{method}"] = handler

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        method = handler_call_details.method
        handler = self._handlers.get(method)
        if handler is not None:
            return handler
        if method.startswith(_AUTH_PREFIX):
            return _refusal(grpc.StatusCode.UNIMPLEMENTED, AUTH_OFF)
        return _refusal(grpc.StatusCode.UNIMPLEMENTED, f"{method[1:]} is not built into the embedded engine")


class _TokenInterceptor(_InterceptorBase):
    """Lets in only callers whose ``authn-token`` is the one we know."""

    def __init__(self, token: str) -> None:
        if not token:
            raise ValueError("an empty token would let everybody in")
        self._token = token.encode()

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        given = None
        for key, value in handler_call_details.invocation_metadata or ():
            if key == "authn-token":
                given = value if isinstance(value, bytes) else value.encode()
        if not given:
            return _refusal(grpc.StatusCode.UNAUTHENTICATED, "no authentication token (try logging in)")
        if not hmac.compare_digest(given, self._token):
            return _refusal(
                grpc.StatusCode.UNAUTHENTICATED,
                "provided auth token is corrupted or has expired (try logging in again)",
            )
        return continuation(handler_call_details)


def _refusal(code: grpc.StatusCode, text: str) -> Handler:
    """A handler for calls of any shape that ends them at once, without reading what they send."""

    def refuse(_: object, context: grpc.ServicerContext) -> None:
        context.abort(code, text)

    return grpc.stream_stream_rpc_method_handler(refuse)
