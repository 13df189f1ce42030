"""Answers of the HTTP API about itself; those of the services are ``services.views`` (docs/api.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from kaos_backend.services.views import ActiveJob, Answer, Device, Paused, View


class Error(View):
    code: str
    message: str
    hint: str
    fields: dict[str, Any]


class ErrorBody(Answer):
    error: Error


class Health(Answer):
    kaos_version: str
    api: int
    pid: int
    ok: bool


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
    home: str
    engine: EngineStatus
    runtime: RuntimeStatus
    machine: MachineStatus
    store: StoreStatus
    jobs: Sequence[ActiveJob]
    paused: Paused


class Environment(Answer):
    env: dict[str, str]
