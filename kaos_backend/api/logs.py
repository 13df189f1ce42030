"""The two forms of a log: JSON lines, and blocks of lines as they are stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from typing import Any

import msgspec

from kaos_backend.api.streams import json_line
from kaos_backend.services.logs import Block, End, Waiting
from kaos_formats import loglines

Item = Block | Waiting | End


class Form(StrEnum):
    """``lines``: each line is a JSON object. ``blocks``: JSON lines too, but one with ``bytes`` is followed
    by so many bytes of a log as it is stored.
    """

    LINES = "lines"
    BLOCKS = "blocks"


MEDIA_TYPES = {Form.LINES: "application/x-ndjson", Form.BLOCKS: "application/vnd.kaos.log"}


class _Line(msgspec.Struct):
    stage: str
    trial: int | None
    model: str | None
    ts: str | None
    user: bool
    text: str


def encoder(form: Form) -> Callable[[Item], bytes]:
    """What makes bytes of a log's items."""
    of_block = _block if form is Form.BLOCKS else _lines

    def encode(item: Item) -> bytes:
        return of_block(item) if isinstance(item, Block) else json_line(_mark(item))

    return encode


def _block(block: Block) -> bytes:
    head = {"stage": block.stage, "trial": block.trial, "model": block.model, "at": block.at, "to": block.to}
    return json_line({**head, "bytes": len(block.data)}) + block.data


def _lines(block: Block) -> bytes:
    stage, trial, model = block.stage, block.trial, block.model
    return msgspec.json.Encoder().encode_lines(
        _Line(stage, trial, model, loglines.time_of(line), line.user, line.text)
        for line in loglines.lines(block.data)
    )


def _mark(item: Waiting | End) -> dict[str, Any]:
    if isinstance(item, Waiting):
        return {"waiting": True, "reason": item.reason}
    ended = {"end": True, "state": item.state, "reason": item.reason}
    return ended | ({"trial": asdict(item.trial)} if item.trial is not None else {})
