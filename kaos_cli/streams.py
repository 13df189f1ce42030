"""Answers that are read as they come: JSON lines, and blocks of logs between them."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Iterator
from typing import Any

from kaos_cli.errors import ConnectionLost, KaosError

_CHUNK_BYTES = 1 << 20
Json = dict[str, Any]


def json_lines(response: http.client.HTTPResponse) -> Iterator[Json]:
    """The lines up to the one that says ``end``. Raises KaosError for one that is an error, ConnectionLost
    when the answer breaks off.
    """
    return _to_end(json.loads(line) for line in _lines(response) if line.strip())


def blocks(response: http.client.HTTPResponse) -> Iterator[Json]:
    """As ``json_lines``; behind a line with ``bytes`` there are so many, which become its ``data``."""
    return _to_end(_blocks(response))


def _blocks(response: http.client.HTTPResponse) -> Iterator[Json]:
    while (line := response.readline()).endswith(b"\n"):
        item = json.loads(line)
        if "bytes" in item:
            item["data"] = response.read(item["bytes"])
            if len(item["data"]) < item["bytes"]:
                return
        yield item


def _to_end(items: Iterable[Json]) -> Iterator[Json]:
    for item in items:
        if error := item.get("error"):
            raise KaosError(error["code"], error["message"], hint=error.get("hint") or "")
        yield item
        if item.get("end"):
            return
    raise ConnectionLost("the answer broke off")


def _lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Whole lines as they come, without their ends: its own `readline` takes several calls for each."""
    rest = b""
    while data := response.read1(_CHUNK_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines
