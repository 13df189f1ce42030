"""The operations of the API as its OpenAPI document describes them: what the front door lets pass.

Taken from the document, so that it cannot promise what is not held to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from kaos_backend.api.admission import Place

PLACE = "x-kaos-place"
"""The extension of an operation that says which places it takes; without it: calls."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. ``media_type`` of its body, None if it takes none."""

    query: frozenset[str]
    media_type: str | None
    place: Place


class Operations:
    """All operations, found by path and method."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._paths = [(_pattern(path), _operations(item)) for path, item in document["paths"].items()]

    def at(self, path: str) -> Mapping[str, Operation]:
        """The operations of a decoded path by method; {} if nothing is there."""
        for pattern, operations in self._paths:
            if pattern.fullmatch(path):
                return operations
        return {}


def _pattern(template: str) -> re.Pattern[str]:
    literal_or_parameter = re.split(r"(\{[^}]*\})", template)
    return re.compile("".join("[^/]+" if p.startswith("{") else re.escape(p) for p in literal_or_parameter))


def _operations(item: Mapping[str, Any]) -> dict[str, Operation]:
    return {method.upper(): _operation(described) for method, described in item.items()}


def _operation(described: Mapping[str, Any]) -> Operation:
    body = described.get("requestBody", {}).get("content", {})
    return Operation(
        query=frozenset(p["name"] for p in described.get("parameters", ()) if p["in"] == "query"),
        media_type=next(iter(body), None),
        place=cast(Place, described.get(PLACE, "calls")),
    )
