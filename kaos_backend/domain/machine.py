"""What the embedded engine says about the machine it runs on, read from its cluster metadata. Pure."""

from __future__ import annotations

import json
from typing import Any

from kaos_backend.domain.models import Cluster

MACHINE, RUNTIME, ISOLATION, NOTES = "kaos.machine", "kaos.runtime", "kaos.isolation", "kaos.notes"


def machine_of(cluster: Cluster) -> dict[str, Any]:
    """``cpus``, ``memory_bytes`` and ``gpus`` of the machine; {} on a real cluster, which does not say."""
    value = _json(cluster.metadata.get(MACHINE, ""))
    return value if isinstance(value, dict) else {}


def notes_of(cluster: Cluster) -> list[str]:
    """What the runtime wants the user to know, for example what it does not isolate."""
    text = cluster.metadata.get(NOTES, "")
    value = _json(text)
    if isinstance(value, list):
        return [str(item) for item in value]
    return [line for line in text.splitlines() if line]


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
