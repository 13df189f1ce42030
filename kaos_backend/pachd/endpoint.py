"""Where pachd is, and who knows it. Imports nothing heavy: the engine is started before all else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a pachd listens. ``address`` is ``host:port`` for the embedded engine, a pachd address
    (``grpc://…``) for a remote one. ``generation`` changes whenever the engine behind it was started anew.
    ``socket``: the embedded engine's Unix socket, over which it takes and writes files of its user; ""
    without one.
    """

    address: str
    token: str | None
    generation: int
    embedded: bool
    socket: str = ""


class Engine(Protocol):
    """Whoever knows where pachd is and can bring it back."""

    def current(self) -> Endpoint:
        """The endpoint as last known; raises EngineUnavailable if there never was one."""

    def ensure(self) -> Endpoint:
        """Checks that the engine lives and starts it if not; raises EngineUnavailable."""
