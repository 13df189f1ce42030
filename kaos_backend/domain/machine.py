"""What the embedded engine says about the machine it runs on, read from its cluster metadata. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kaos_backend.domain.models import Cluster
from kaos_backend.domain.resources import Resources
from kaos_backend.errors import NeverFits
from kaos_formats.quantity import format_bytes

MACHINE, RUNTIME, ISOLATION, NOTES = "kaos.machine", "kaos.runtime", "kaos.isolation", "kaos.notes"


def machine_of(cluster: Cluster) -> dict[str, Any]:
    """``cpus``, ``memory_bytes`` and ``gpus`` of the machine; {} on a real cluster, which does not say."""
    value = _json(cluster.metadata.get(MACHINE, ""))
    return value if isinstance(value, dict) else {}


def builder_of(cluster: Cluster) -> str:
    """Who makes images there: ``docker``, or ``venv`` where no Docker engine is used."""
    return "docker" if cluster.metadata.get(RUNTIME) == "docker" else "venv"


def check_fits(machine: Mapping[str, Any], asked: Resources) -> None:
    """Raises NeverFits for what no trial can ever be granted on ``machine`` (one of ``machine_of``)."""
    gpus = machine.get("gpus")
    amounts: dict[str, tuple[float, Any]] = {
        "cpu": (asked.cpu, machine.get("cpus")),
        "memory": (asked.memory or 0, machine.get("memory_bytes")),
        "gpu": (asked.gpu, len(gpus) if isinstance(gpus, list) else gpus),
    }
    for name, (amount, there) in amounts.items():
        if there is not None and amount > there:
            spell = (lambda n: format_bytes(int(n))) if name == "memory" else "{:g}".format
            raise NeverFits(
                f"a trial asks for {spell(amount)} {name}, but this machine has {spell(there)}",
                hint=f"ask for less with --{name}",
            )


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
