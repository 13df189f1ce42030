"""Routes of what runs in the foreground: a stream of lines as long as it lasts, and calls for what is
typed.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from kaos_backend import errors
from kaos_backend.api.deps import Awake, Plain
from kaos_backend.api.openapi import ends_in
from kaos_backend.api.operations import needs
from kaos_backend.api.streams import JsonLines, json_lines
from kaos_backend.services import requests, views
from kaos_backend.services.lines import ForegroundLine

router = APIRouter(tags=["foreground"])

_STREAM = needs("write", place="foreground")


@router.post(
    "/workspaces/{workspace}/run",
    response_class=JsonLines,
    responses=ends_in(
        errors.NoSuchWorkspace,
        errors.NoBundle,
        errors.InvalidHyper,
        errors.InvalidResources,
        errors.NeverFits,
    ),
    openapi_extra=_STREAM,
)
def run(workspace: str, body: requests.Run, request: Request, services: Awake) -> JsonLines:
    """One trial in the foreground: JSON lines as long as it runs; it ends when they are not read any more."""
    return json_lines(services.foregrounds.run(workspace, body), _encode, request)


@router.post(
    "/workspaces/{workspace}/jobs/{ref}/trials/{trial}/shell",
    response_class=JsonLines,
    responses=ends_in(
        errors.NoSuchWorkspace, errors.NoSuchJob, errors.Ambiguous, errors.NotFound, errors.NotYet
    ),
    openapi_extra=_STREAM,
)
def shell(
    workspace: str,
    ref: str,
    trial: Annotated[int, Path(ge=0, le=requests.MAX_NUMBER)],
    body: requests.Shell,
    request: Request,
    services: Awake,
) -> JsonLines:
    """A shell where a trial was: JSON lines as long as it runs; it ends when they are not read any more."""
    return json_lines(services.foregrounds.shell(workspace, ref, trial, body), _encode, request)


@router.get(
    "/workspaces/{workspace}/data/check",
    response_class=JsonLines,
    responses=ends_in(errors.NoSuchWorkspace, errors.NoBundle, errors.NotYet),
    openapi_extra=needs("read", place="foreground"),
)
def check_data(workspace: str, request: Request, services: Awake) -> JsonLines:
    """Whether what a manifest names has changed since it was fetched: JSON lines of what is waited for,
    findings and an end. Servers are asked, nothing is fetched. 404 no_bundle; 409 not_yet.
    """
    check = services.upstream.check(workspace)
    return json_lines(check, lambda line: line.model_dump(exclude_defaults=True), request)


@router.post(
    "/foreground/{session}", responses=ends_in(errors.NotFound), openapi_extra=needs("write", of="any")
)
def type_(session: str, body: requests.Typed, services: Plain) -> views.Typed:
    """What is typed at a command in the foreground, or the new size of its terminal; ``end`` ends it. 404
    not_found: it has ended.
    """
    # Nobody can guess its name, which only who began it was told.
    services.foregrounds.type(session, body)
    return views.Typed(ok=True)


def _encode(line: ForegroundLine) -> dict[str, Any]:
    told = line.model_dump(exclude_defaults=True)
    for name in ("printed", "output"):
        if name in told:
            told[name] = b64encode(told[name]).decode()
    return told | ({"code": line.code, "reason": line.reason} if line.end else {})
