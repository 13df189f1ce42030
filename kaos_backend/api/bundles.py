"""Routes of bundles: looking them up and uploading them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from kaos_backend import errors
from kaos_backend.api.deps import Awake, same_user
from kaos_backend.api.exchange import too_large
from kaos_backend.api.openapi import ends_in
from kaos_backend.api.operations import needs
from kaos_backend.api.streams import BodyPipe, JsonLines, json_lines
from kaos_backend.services import requests, views
from kaos_formats.handover import MAX_LIST_BYTES, Folder
from kaos_formats.names import BundleKind

router = APIRouter(prefix="/workspaces/{workspace}/bundles/{kind}", tags=["bundles"])


@router.get(
    "/head/tree",
    response_class=PlainTextResponse,
    responses=ends_in(errors.NoSuchWorkspace, errors.NoBundle),
    openapi_extra=needs("read", place="downloads"),
)
def head_tree(workspace: str, kind: BundleKind, services: Awake) -> PlainTextResponse:
    """The file list of the current bundle as text/plain (format in docs/api.md). 404 no_bundle."""
    return PlainTextResponse(services.bundles.head_tree(workspace, kind))


@router.get(
    "/{bundle_id}", responses=ends_in(errors.NoSuchWorkspace, errors.NoBundle), openapi_extra=needs("read")
)
def get_bundle(workspace: str, kind: BundleKind, bundle_id: str, services: Awake) -> views.BundleAnswer:
    """A bundle that is current (``head``, or its id) or staged. 404 no_bundle."""
    return views.BundleAnswer(**dict(services.bundles.get(workspace, kind, bundle_id)))


@router.post("/{bundle_id}/missing", responses=ends_in(errors.NoSuchWorkspace), openapi_extra=needs("write"))
def missing_contents(
    workspace: str, kind: BundleKind, bundle_id: str, body: requests.Missing, services: Awake
) -> views.Missing:
    """Of the contents that a bundle is made of, those that are not stored yet and must be sent with it; and
    of large ones that broke off, how much is there.
    """
    return services.bundles.missing(workspace, kind, bundle_id, body.objects)


@router.put(
    "/{bundle_id}",
    status_code=201,
    responses=ends_in(
        errors.NoSuchWorkspace, errors.InvalidBundle, errors.InvalidName, errors.StaleBase, errors.StaleOffset
    ),
    openapi_extra=needs(
        "write",
        place="uploads",
        requestBody={
            "required": True,
            "content": {"application/zstd": {"schema": {"type": "string", "format": "binary"}}},
        },
    ),
)
async def put_bundle(
    workspace: str,
    kind: BundleKind,
    bundle_id: str,
    request: Request,
    services: Awake,
    name: Annotated[str, Query()],
    base: Annotated[str | None, Query()] = None,
) -> views.UploadedBundle:
    """Stores a bundle from a streamed tar in zstd. 400 invalid_bundle, 409 stale_base, stale_offset.
    Idempotent."""
    pipe = BodyPipe()
    feeding = asyncio.create_task(pipe.feed(request.stream()))
    try:
        return await run_in_threadpool(services.bundles.put, workspace, kind, bundle_id, name, base, pipe)
    finally:
        pipe.abandon()
        feeding.cancel()
        with contextlib.suppress(asyncio.CancelledError, ClientDisconnect):
            await feeding


@router.post(
    "",
    response_class=JsonLines,
    responses=ends_in(
        errors.NoSuchWorkspace,
        errors.InvalidBundle,
        errors.InvalidName,
        errors.BodyTooLarge,
        errors.NoHandover,
        errors.StaleBase,
    ),
    openapi_extra=needs(
        "write",
        place="uploads",
        requestBody={
            "required": True,
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
        },
    ),
)
async def take_bundle(
    workspace: str,
    kind: BundleKind,
    request: Request,
    services: Awake,
    name: Annotated[str, Query()],
    base: Annotated[str | None, Query()] = None,
) -> JsonLines:
    """Takes a bundle from a folder of this machine: the folder, then its files, in JSON lines; answers with
    JSON lines of what was read, hashes, and the bundle. With ``base``, the id of the current bundle: the
    folder, the paths that are gone since, then the files that are not as in it. On the Unix socket only.
    409 no_handover, changed, stale_base.
    """
    if not same_user(request):
        raise errors.NoHandover(
            "files are handed over on the backend's Unix socket only, to its own user",
            hint="send the bundle with PUT",
        )
    folder, lines = await _listed(request)
    taking = await run_in_threadpool(services.takeover.take, workspace, kind, name, folder, lines, base)
    return json_lines(taking, lambda line: line.model_dump(exclude_defaults=True), request)


async def _listed(request: Request) -> tuple[Folder, list[bytes]]:
    """The folder and the lines of files in a body."""
    lines: list[bytes] = []
    rest, size = b"", 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_LIST_BYTES:
            raise too_large(MAX_LIST_BYTES)
        *whole, rest = (rest + chunk).split(b"\n")
        lines += whole
    try:
        if rest or not lines:
            raise ValueError("it does not end with a whole line")
        return msgspec.json.decode(lines[0], type=Folder), lines[1:]
    except (msgspec.DecodeError, ValueError) as error:
        raise errors.InvalidRequest(f"the list of files is broken: {error}") from error


@router.delete("/{bundle_id}", status_code=204, openapi_extra=needs("write"))
def delete_bundle(workspace: str, kind: BundleKind, bundle_id: str, services: Awake) -> None:
    """Removes a bundle that was sent but not deployed, if there is one."""
    services.bundles.forget(workspace, kind, bundle_id)
