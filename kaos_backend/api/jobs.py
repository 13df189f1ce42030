"""Routes of jobs: listing, details, logs, archives, stopping."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import StreamingResponse

from kaos_backend import errors
from kaos_backend.api.deps import Awake, Who, same_user
from kaos_backend.api.logs import MEDIA_TYPES, Form, encoder
from kaos_backend.api.openapi import ends_in
from kaos_backend.api.operations import needs
from kaos_backend.api.streams import NO_STORE, JsonLines, Steps, encoded, json_lines
from kaos_backend.domain.metrics import Order
from kaos_backend.services import requests, views
from kaos_backend.services.archives import What
from kaos_backend.services.logs import LogQuery
from kaos_formats.handover import Folder

router = APIRouter(prefix="/workspaces/{workspace}/jobs", tags=["jobs"])

_OF_A_JOB = (errors.NoSuchWorkspace, errors.NoSuchJob, errors.Ambiguous)


# Who asks; told to those who look.
_Author = Annotated[str, Query(json_schema_extra=requests.AUTHOR)]


class _Archive(StreamingResponse):
    media_type = "application/zstd"


@router.get("", responses=ends_in(*_OF_A_JOB), openapi_extra=needs("read"))
def list_jobs(
    workspace: str,
    services: Awake,
    limit: Annotated[int | None, Query(ge=1, le=10_000)] = None,
    after: str | None = None,
) -> views.Jobs:
    """Jobs, newest first, or those behind job ``after``, which are older. 404 no_such_workspace, no_such_job
    (``after``).
    """
    return services.jobs.newest(workspace, limit, after)


@router.get("/{ref}", responses=ends_in(*_OF_A_JOB), openapi_extra=needs("read"))
def get_job(
    workspace: str,
    ref: str,
    services: Awake,
    sort_by: str | None = None,
    order: Order | None = None,
    limit: Annotated[int | None, Query(ge=1, le=requests.MAX_NUMBER)] = None,
) -> views.JobDetail:
    """One job with its trials, best first, or the first ``limit`` of them. ``ref``: id, unique prefix or
    ``last``. 404 no_such_job, 409 ambiguous.
    """
    return services.trials.detail(workspace, ref, sort_by, order, limit)


@router.get("/{ref}/trials", responses=ends_in(*_OF_A_JOB), openapi_extra=needs("read"))
def list_trials(
    workspace: str,
    ref: str,
    services: Awake,
    after: Annotated[int, Query(ge=-1, le=requests.MAX_NUMBER)] = -1,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 500,
    since: Annotated[int, Query(ge=0, le=requests.MAX_NUMBER)] = 0,
) -> views.Trials:
    """A page of a job's trials in order of their numbers, those behind number ``after``; with ``since``, the
    ``revision`` of an earlier answer, only what has changed. 404 no_such_job, 409 ambiguous.
    """
    return services.trials.page(workspace, ref, after, limit, since)


@router.get("/{ref}/summary", responses=ends_in(*_OF_A_JOB), openapi_extra=needs("read"))
def get_summary(workspace: str, ref: str, services: Awake) -> views.JobAnswer:
    """One job without its trials, for asking again and again. 404 no_such_job, 409 ambiguous."""
    return views.JobAnswer(**dict(services.jobs.look(workspace, ref)))


@router.get(
    "/{ref}/logs",
    response_class=StreamingResponse,
    responses={
        200: {"content": {kind: {} for kind in MEDIA_TYPES.values()}},
        **ends_in(*_OF_A_JOB, errors.NotFound),
    },
    openapi_extra=needs("read", place="logs"),
)
def get_logs(
    workspace: str,
    ref: str,
    request: Request,
    services: Awake,
    trial: Annotated[int | None, Query(ge=0, le=requests.MAX_NUMBER)] = None,
    stage: str | None = None,
    follow: bool = False,
    tail: Annotated[int, Query(ge=0, le=requests.MAX_NUMBER)] = 0,
    form: Form = Form.LINES,
) -> StreamingResponse:
    """Log lines as JSON lines, or many of them in a block; the last line is ``{"end":true,"state":…}``. 404
    no_such_job, not_found (no such trial).
    """
    reading = services.logs.open(workspace, ref, LogQuery(trial, stage, follow, tail))
    chunks = encoded(reading, encoder(form), request.is_disconnected)
    return StreamingResponse(chunks, headers=NO_STORE, media_type=MEDIA_TYPES[form])


@router.get(
    "/{ref}/archive",
    response_class=_Archive,
    responses=ends_in(*_OF_A_JOB, errors.NoSuchModel, errors.NoBundle, errors.NotYet),
    openapi_extra=needs("read", place="downloads"),
)
def get_archive(workspace: str, ref: str, services: Awake, what: What, model: str | None = None) -> _Archive:
    """A tar in zstd of models, of what failed trials left, of code or data. 404 no_such_job, no_such_model,
    no_bundle; 409 ambiguous, not_yet.
    """
    return _Archive(services.archives.open(workspace, ref, what, model))


@router.post(
    "/{ref}/export",
    response_class=JsonLines,
    responses=ends_in(*_OF_A_JOB, errors.NoBundle, errors.NoHandover),
    openapi_extra=needs("read", place="downloads"),
)
def export(workspace: str, ref: str, body: requests.Export, request: Request, services: Awake) -> JsonLines:
    """Writes code or data into an empty folder of this machine; JSON lines of how far that is. On the Unix
    socket only. 404 no_bundle; 409 no_handover.
    """
    if not same_user(request):
        raise errors.NoHandover("files are handed over on the backend's Unix socket only, to its own user")
    into = Folder(body.path, body.device, body.inode)
    steps = Steps(services.archives.export(workspace, ref, body.what, into, body.mode))
    return json_lines(steps, lambda line: line.model_dump(), request)


@router.post("/{ref}/stop", responses=ends_in(*_OF_A_JOB, errors.InvalidName), openapi_extra=needs("write"))
def stop_job(workspace: str, ref: str, services: Awake, who: Who, author: _Author = "") -> views.JobAnswer:
    """Stops a job; one that has ended stays as it is. 404 no_such_job; 400 invalid_name (of the author)."""
    return views.JobAnswer(**dict(services.jobs.stop(workspace, ref, who.author(author))))


@router.post(
    "/{ref}/retry",
    responses=ends_in(
        *_OF_A_JOB,
        errors.NotYet,
        errors.ImageMissing,
        errors.NeedsEmbeddedEngine,
        errors.JobOpen,
        errors.InvalidName,
    ),
    openapi_extra=needs("write"),
)
def retry_job(workspace: str, ref: str, body: requests.Retry, services: Awake, who: Who) -> views.RetryResult:
    """Runs what did not succeed in a job once more, on the inputs that it had. 404 no_such_job; 409 not_yet
    (it has not ended), image_missing, job_open; 501 needs_embedded_engine.
    """
    return services.retries.retry(workspace, ref, body.model_copy(update={"author": who.author(body.author)}))


@router.post(
    "/{ref}/trials/{trial}/stop",
    responses=ends_in(
        *_OF_A_JOB, errors.NotFound, errors.NotYet, errors.NeedsEmbeddedEngine, errors.InvalidName
    ),
    openapi_extra=needs("write"),
)
def stop_trial(
    workspace: str,
    ref: str,
    trial: Annotated[int, Path(ge=0, le=requests.MAX_NUMBER)],
    services: Awake,
    who: Who,
    author: _Author = "",
) -> views.TrialAnswer:
    """Ends one trial, and lets the others go on; one that has ended stays as it is. 404 no_such_job,
    not_found (no such trial); 409 not_yet (before the training began); 501 needs_embedded_engine.
    """
    return services.trials.stop(workspace, ref, trial, who.author(author))
