"""Who calls: the engine's own user, as far as that can be told.

gRPC in Python does not tell the user id of a peer. What tells is the way in: the Unix socket is in a folder
that nobody but its user may enter (`kaos_formats.home.own_socket`).
"""

from __future__ import annotations

import grpc

from kaos_backend.engine.errors import NoHandover


def require_same_user(context: grpc.ServicerContext, what: str) -> None:
    """Raise NoHandover, which says what is for that user only, unless the caller came by the Unix socket."""
    if not context.peer().startswith("unix:"):
        raise NoHandover(f"{what} on the engine's Unix socket only, to its own user")
