"""The operations of the API as its OpenAPI document describes them: what the front door lets pass.

Taken from the document, so that it cannot promise what is not held to. Each route says where it is declared
what a caller needs for it; with one that does not say so no request is answered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from kaos_backend.api.admission import Place
from kaos_backend.domain.rights import Right

PLACE = "x-kaos-place"
"""The extension of an operation that says which places it takes."""
RIGHT = "x-kaos-right"
SCOPE = "x-kaos-scope"
"""The extensions that say which right it takes, and where."""

Scope = Literal["workspace", "server", "any"]
"""``workspace``: that of the path. ``server``: all. ``any``: the route itself looks at whose is what."""


def needs(
    right: Right, *, of: Scope = "workspace", place: Place = "calls", **described: Any
) -> dict[str, Any]:
    """``openapi_extra`` of a route: what a caller needs for it, and what else the document says of it."""
    return {RIGHT: right, SCOPE: of, PLACE: place, **described}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. ``media_type`` of its body, None if it takes none. See ``Scope``."""

    query: frozenset[str]
    media_type: str | None
    place: Place
    right: Right
    scope: Scope


class Operations:
    """All operations, found by path and method."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._paths = [(_pattern(path), _operations(path, item)) for path, item in document["paths"].items()]

    def at(self, path: str) -> tuple[Mapping[str, Operation], str | None]:
        """The operations of a decoded path by method, {} if nothing is there; and the workspace in it."""
        for pattern, operations in self._paths:
            if (found := pattern.fullmatch(path)) is not None:
                return operations, found.groupdict().get("workspace")
        return {}, None


def _pattern(template: str) -> re.Pattern[str]:
    literal_or_parameter = re.split(r"\{([^}]*)\}", template)
    return re.compile(
        "".join(
            f"(?P<{part}>[^/]+)" if number % 2 else re.escape(part)
            for number, part in enumerate(literal_or_parameter)
        )
    )


def _operations(path: str, item: Mapping[str, Any]) -> dict[str, Operation]:
    return {method.upper(): _operation(path, described) for method, described in item.items()}


def _operation(path: str, described: Mapping[str, Any]) -> Operation:
    if RIGHT not in described or (described[SCOPE] == "workspace") != ("{workspace}" in path):
        raise AssertionError(f"{described['operationId']} does not say what a caller needs: see `needs`")
    body = described.get("requestBody", {}).get("content", {})
    return Operation(
        query=frozenset(p["name"] for p in described.get("parameters", ()) if p["in"] == "query"),
        media_type=next(iter(body), None),
        place=cast(Place, described[PLACE]),
        right=cast(Right, described[RIGHT]),
        scope=cast(Scope, described[SCOPE]),
    )
