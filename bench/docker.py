"""The Docker engine of the parts that measure containers."""

from __future__ import annotations

import os
import sys

import docker

from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.workers.docker.engine import connect


def docker_engine(part: str) -> docker.APIClient | None:
    """A client of it; None, and said so, where none answers: the part is left out then."""
    try:
        return connect(os.environ)
    except EngineError as error:
        print(f"({part}) is left out, {error.message}", file=sys.stderr)
        return None
