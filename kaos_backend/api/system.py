"""Routes about the backend itself: health, status, how to reach the engine."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request

from kaos_backend import __version__
from kaos_backend.api import errors, schemas
from kaos_backend.api.deps import Awake, Plain, Who
from kaos_backend.api.openapi import ends_in
from kaos_backend.api.operations import needs
from kaos_backend.api.streams import NO_STORE, JsonLines
from kaos_backend.domain import machine
from kaos_backend.domain.descriptions import rfc3339
from kaos_backend.domain.rights import Caller
from kaos_backend.errors import KaosError, NeedsEmbeddedEngine, NoSuchWorkspace
from kaos_backend.services import requests, views
from kaos_backend.services.views import Answer
from kaos_formats.http_api import API

router = APIRouter(tags=["system"])

_DEFAULT_PACHD_PORT = "30650"


@router.get("/health", openapi_extra=needs("read", of="any", place="none"))
async def health(who: Who) -> schemas.Health:
    """Whether the backend answers, and whom it takes the caller for; does not look at the engine."""
    caller = schemas.Caller(
        name=who.name,
        rights=who.right,
        workspaces=None if who.workspaces is None else sorted(who.workspaces),
        expires=rfc3339(who.expires),
    )
    return schemas.Health(kaos_version=__version__, api=API, pid=os.getpid(), ok=True, caller=caller)


@router.get("/status", openapi_extra=needs("read", of="any"))
def status(request: Request, services: Awake, who: Who) -> schemas.Status:
    """The backend, the engine behind it, the machine as the engine counts it, and its queue, as far as the
    caller may see it.
    """
    endpoint = services.engine.current()
    cluster = services.pachd.cluster()
    found = machine.machine_of(cluster)
    gpus = found.get("gpus")
    queue, paused = services.queue.look(), services.jobs.paused()
    return schemas.Status(
        kaos_version=__version__,
        pid=os.getpid(),
        url=str(request.base_url).rstrip("/"),
        serves=request.app.state.serves,
        home=str(services.settings.home.path),
        engine=schemas.EngineStatus(
            kind="embedded" if endpoint.embedded else "remote", address=endpoint.address
        ),
        runtime=schemas.RuntimeStatus(
            name=cluster.metadata.get(machine.RUNTIME, "kubernetes"),
            isolation=cluster.metadata.get(machine.ISOLATION, "container"),
            notes=machine.notes_of(cluster),
        ),
        machine=schemas.MachineStatus(
            cpus=found.get("cpus"),
            memory_bytes=found.get("memory_bytes"),
            gpus=len(gpus) if isinstance(gpus, list) else gpus,
            devices=None if queue.devices is None else [_seen(one, who) for one in queue.devices],
        ),
        store=schemas.StoreStatus(
            free_bytes=_free_bytes(services.settings.home.path) if endpoint.embedded else None
        ),
        jobs=[job for job in queue.jobs if who.sees(job.workspace)],
        paused=paused.model_copy(update={"workspaces": list(filter(who.sees, paused.workspaces))}),
    )


@router.get("/openapi.json", openapi_extra=needs("read", of="any"))
async def openapi(request: Request) -> dict[str, Any]:
    """This document."""
    document: dict[str, Any] = request.app.openapi()
    return document


@router.get("/status/env", openapi_extra=needs("owner", of="server"))
def environment(services: Plain) -> schemas.Environment:
    """Variables with which any pachyderm-sdk program reaches the engine."""
    endpoint = services.engine.ensure()
    address = endpoint.address.rpartition("://")[2]
    host, _, port = address.rpartition(":") if ":" in address else (address, "", _DEFAULT_PACHD_PORT)
    env = {"PACHD_PEER_SERVICE_HOST": host, "PACHD_PEER_SERVICE_PORT": port}
    if endpoint.embedded:
        env["PACH_CONFIG"] = str(services.settings.home.path / "pachctl.json")
    if endpoint.token:
        env["PACH_PYTHON_AUTH_TOKEN"] = endpoint.token
    return schemas.Environment(env=env)


@router.post(
    "/check",
    response_class=JsonLines,
    responses=ends_in(NeedsEmbeddedEngine),
    openapi_extra=needs("admin", of="server", place="logs"),
)
def check(body: requests.Check, services: Awake) -> JsonLines:
    """Reads and compares all that is stored: JSON lines of progress, findings and an end. 501
    needs_embedded_engine.
    """
    lines = services.checks.run(body.repair)
    # The first one is made now, so that what cannot be done is an answer and not a broken stream.
    first = next(lines)
    return JsonLines(_lines(first, lines), headers=NO_STORE)


@router.get("/disk", responses=ends_in(NeedsEmbeddedEngine), openapi_extra=needs("read", of="any"))
def disk(services: Awake, who: Who) -> views.DiskUse:
    """What takes the disk, by workspace that the caller may see, what several share, and what can go. 501
    needs_embedded_engine.
    """
    use = services.space.use()
    seen = {name: share for name, share in use.workspaces.items() if who.sees(name)}
    return use.model_copy(update={"workspaces": seen})


@router.post(
    "/collect",
    response_class=JsonLines,
    responses=ends_in(NeedsEmbeddedEngine),
    openapi_extra=needs("admin", of="server", place="logs"),
)
def collect(body: requests.Collect, services: Awake) -> JsonLines:
    """Removes what nothing needs any more, or tells what that is: JSON lines of progress and an end. 501
    needs_embedded_engine.
    """
    lines = services.space.collect(body.dry_run)
    first = next(lines)
    return JsonLines(_lines(first, lines), headers=NO_STORE)


@router.post(
    "/pause",
    responses=ends_in(NoSuchWorkspace, NeedsEmbeddedEngine),
    openapi_extra=needs("write", of="any"),
)
def pause(body: requests.Pause, services: Awake, who: Who) -> views.PausedAnswer:
    """Lets nothing new start in a workspace (null: in any), or lets it again; what runs goes on. Where
    nothing starts now. 404 no_such_workspace; 501 needs_embedded_engine.
    """
    who.check_in("admin" if body.workspace is None else "write", body.workspace)
    answer = dict(services.jobs.pause(body.workspace, body.paused))
    return views.PausedAnswer(**answer | {"workspaces": list(filter(who.sees, answer["workspaces"]))})


@router.post("/room", responses=ends_in(NeedsEmbeddedEngine), openapi_extra=needs("write", of="any"))
def room(body: requests.Room, services: Awake) -> views.Room:
    """The room on the disk of what is stored, after inputs laid out that no job uses have made room for so
    many bytes, and what of some contents is not stored yet. 501 needs_embedded_engine.
    """
    found = services.pachd.room(
        body.bytes, {bytes.fromhex(name): size for name, size in body.objects.items()}
    )
    return views.Room(free_bytes=found.free, total_bytes=found.total, missing_bytes=found.missing)


def _lines(first: Answer, rest: Iterator[Answer]) -> Iterator[bytes]:
    try:
        for line in chain((first,), rest):
            yield line.model_dump_json(exclude_none=True).encode() + b"\n"
    except KaosError as error:
        yield json.dumps(errors.body(error)).encode() + b"\n"


def _seen(device: views.Device, who: Caller) -> views.Device:
    """Of a job in a workspace of others only that there is one."""
    if not device.workspace or who.sees(device.workspace):
        return device
    return device.model_copy(update={"workspace": "", "job": "", "others": "another workspace"})


def _free_bytes(home: Path) -> int:
    return shutil.disk_usage(home).free
