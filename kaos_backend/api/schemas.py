"""Answers of the HTTP API about itself; those of the services are ``services.views`` (docs/api.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from kaos_backend.domain.rights import Granted
from kaos_backend.services.requests import AUTHOR, WORKSPACE, Request, nullable
from kaos_backend.services.views import ActiveJob, Answer, Device, Paused, View
from kaos_backend.tokens import MAX_EXPIRY

MAX_WORKSPACES = 1000

# Described only, as in ``services.requests``: it is checked where tokens are made.
_TOKEN: dict[str, Any] = {"pattern": "^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}$"}
_SOME_WORKSPACES = {
    "type": "array",
    "items": {"type": "string", **WORKSPACE},
    "minItems": 1,
    "maxItems": MAX_WORKSPACES,
}
_EXPIRY = {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_EXPIRY.total_seconds()}


class Error(View):
    code: str
    message: str
    hint: str
    fields: dict[str, Any]


class ErrorBody(Answer):
    error: Error


class Caller(View):
    """``name``: of its token, "" for the owner of the home. ``workspaces`` null: all."""

    name: str
    rights: Literal["read", "write", "admin", "owner"]
    workspaces: Sequence[str] | None
    expires: str | None


class Health(Answer):
    kaos_version: str
    api: int
    pid: int
    ok: bool
    caller: Caller


class TokenCreate(Request):
    """``workspaces`` null: all; ``expires_s`` null: never."""

    name: Annotated[str, Field(json_schema_extra=_TOKEN)]
    rights: Granted = "read"
    workspaces: Annotated[
        list[str] | None, Field(max_length=MAX_WORKSPACES, json_schema_extra=nullable(_SOME_WORKSPACES))
    ] = None
    expires_s: Annotated[float | None, Field(json_schema_extra=nullable(_EXPIRY))] = None
    author: Annotated[str, Field(json_schema_extra=AUTHOR)] = ""


class Token(View):
    name: str
    rights: Granted
    workspaces: Sequence[str] | None
    created: str
    created_by: str
    expires: str | None


class Tokens(Answer):
    tokens: Sequence[Token]


class NewToken(Answer, Token):
    """``token``: what has to be sent to be it; nobody can tell it again."""

    token: str


class RevokedToken(Answer, Token):
    pass


class EngineStatus(View):
    kind: Literal["embedded", "remote"]
    address: str


class RuntimeStatus(View):
    name: str
    isolation: str
    notes: list[str]


class MachineStatus(View):
    cpus: float | None
    memory_bytes: int | None
    gpus: int | None
    devices: Sequence[Device] | None


class StoreStatus(View):
    free_bytes: int | None


class Status(Answer):
    kaos_version: str
    pid: int
    url: str
    serves: str
    home: str
    engine: EngineStatus
    runtime: RuntimeStatus
    machine: MachineStatus
    store: StoreStatus
    jobs: Sequence[ActiveJob]
    paused: Paused


class Environment(Answer):
    env: dict[str, str]
