"""``kaos train``: deploy, watch and fetch."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from kaos_cli.commands import control
from kaos_cli.commands.options import (
    ForceOption,
    JobNamed,
    TimeoutOption,
    TrialOption,
    WaitOption,
    WaitTimeoutOption,
    limit,
    moment,
    pattern,
)
from kaos_cli.errors import KaosError, did_you_mean
from kaos_cli.refs import LAST, job_ref, remember
from kaos_cli.session import AllColumns, Format, Session, Workspace, command

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command()
@command
def deploy(
    session: Session,
    source: Annotated[
        Path | None,
        typer.Option(
            "--source",
            "-s",
            metavar="SRC",
            help="Folder with an executable train and a Dockerfile, or a list of what to install.",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", "-d", metavar="DATA", help="Folder with the data.")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest",
            "-m",
            metavar="FILE",
            help='In place of a folder: lines like {"url": "https://…", "path": "a/b.csv"} of what the server'
            " fetches.",
        ),
    ] = None,
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="Fetch what has changed of the data that a manifest names."),
    ] = False,
    hyper: Annotated[
        Path | None,
        typer.Option(
            "--hyper",
            "-h",
            metavar="HYPER.json",
            help="The grid: lists are axes, a scalar is fixed for every trial.",
        ),
    ] = None,
    parallelism: Annotated[
        int | None, typer.Option("--parallelism", "-p", metavar="N", help="Trials at a time.")
    ] = None,
    cpu: Annotated[float | None, typer.Option("--cpu", metavar="F", help="Cores for each trial.")] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="STR", help="Memory for each trial: 512Mi, 4G, …")
    ] = None,
    gpu: Annotated[int | None, typer.Option("--gpu", metavar="N", help="GPUs for each trial.")] = None,
    tries: Annotated[
        int | None,
        typer.Option("--tries", metavar="N", help="Run each trial up to so many times until it succeeds."),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="TIME",
            parser=limit,
            help="End a trial that takes longer (90s, 10m, 1h30m), each time it is tried; none: no limit.",
        ),
    ] = None,
    build_arg: Annotated[
        list[str] | None,
        typer.Option(
            "--build-arg",
            metavar="NAME=VALUE",
            help="Set an ARG of the Dockerfile, NAME alone as in the environment; may be repeated. Those of a"
            " deploy replace all earlier ones.",
        ),
    ] = None,
    no_build_args: Annotated[
        bool, typer.Option("--no-build-args", help="Build without the build arguments of earlier deploys.")
    ] = False,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            "--secret",
            metavar="NAME",
            help="Give the build a secret for RUN --mount=type=secret,id=NAME, or a fetch a credential: the"
            " environment's NAME, or id=NAME,env=VARIABLE, or id=NAME,src=FILE; may be repeated. Those of a"
            " deploy replace all earlier ones.",
        ),
    ] = None,
    no_secrets: Annotated[
        bool, typer.Option("--no-secrets", help="Forget the secrets of earlier deploys.")
    ] = False,
    wait: WaitOption = False,
    wait_timeout: WaitTimeoutOption = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Run failed trials of the same inputs again.")
    ] = False,
    after: Annotated[
        bool,
        typer.Option("--after", help="If this would stop a job that has not ended, wait for its end first."),
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Stop such a job; its finished trials are kept.")
    ] = False,
    workspace: Workspace = None,
) -> None:
    """Send code, data or a grid (what is left out stays as it was) and train what is new."""
    from kaos_cli.deploying import Request, deploy
    from kaos_cli.inputs import build_arguments, build_secrets

    ws = session.workspace(workspace)
    arguments = build_arguments(build_arg or (), session.env) if build_arg or no_build_args else None
    secrets = build_secrets(secret or (), session.env) if secret or no_secrets else None
    given = (source, data, manifest, hyper, parallelism, cpu, memory, gpu, tries, timeout, arguments, secrets)
    if all(one is None for one in given) and not retry and not refresh:
        raise KaosError("usage", "nothing to deploy", hint="kaos train deploy -s SRC -d DATA [-h HYPER.json]")
    if data is not None and (manifest is not None or refresh):
        also = "-m names" if manifest is not None else "--refresh fetches"
        raise KaosError("usage", f"-d gives the data that {also} as well", hint="give one of them")
    if wait_timeout is not None and not (wait or after):
        raise KaosError("usage", "--wait-timeout limits the waiting", hint="give --wait or --after as well")
    if after and replace:
        raise KaosError("usage", "--after waits for a job that --replace would stop", hint="give one of them")
    if build_arg and no_build_args:
        raise KaosError("usage", "--build-arg contradicts --no-build-args", hint="give one of them")
    if secret and no_secrets:
        raise KaosError("usage", "--secret contradicts --no-secrets", hint="give one of them")
    request = Request(
        source=source,
        data=data,
        manifest=manifest,
        hyper=hyper,
        parallelism=parallelism,
        cpu=cpu,
        memory=memory,
        gpu=gpu,
        tries=tries,
        timeout_s=timeout,
        build_args=arguments,
        build_secrets=secrets,
        retry=retry,
        after=after,
        replace=replace,
        refresh=refresh,
    )
    if code := deploy(session, ws, request, wait, wait_timeout):
        raise typer.Exit(code)


@app.command("list")
@command
def list_(
    session: Session,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="Only the newest so many.")
    ] = None,
    fmt: Format = None,
    all_columns: AllColumns = False,
    workspace: Workspace = None,
) -> None:
    """List the jobs, newest first."""
    ws = session.workspace(workspace)
    jobs = session.client.jobs(ws, limit)
    if session.terminal.json:
        session.terminal.answer_json({"jobs": jobs})
        return
    if not jobs and fmt is None:
        print(f"no jobs in workspace {ws} yet")
        session.terminal.hint("kaos train deploy -s SRC -d DATA starts one")
        return
    from kaos_cli.render import show
    from kaos_cli.views import jobs_table

    remember(session.home, ws, [job["id"] for job in jobs])
    show(jobs_table(jobs, datetime.now(UTC)), session.terminal, fmt, all_columns)


@app.command()
@command
def info(
    session: Session,
    job: JobNamed,
    sort_by: Annotated[
        str | None,
        typer.Option(
            "--sort-by", metavar="METRIC[:asc|desc]", help="Sort the trials by this metric, as numbers."
        ),
    ] = None,
    ascending: Annotated[bool, typer.Option("--asc", help="Lowest first.")] = False,
    descending: Annotated[bool, typer.Option("--desc", help="Highest first.")] = False,
    fmt: Format = None,
    all_columns: AllColumns = False,
    workspace: Workspace = None,
) -> None:
    """Show one job: what went in, and a row for each trial, best first."""
    ws = session.workspace(workspace)
    metric, order = _sorting(sort_by, ascending, descending)
    ref = job.ref(session.home, ws)
    if metric is None and order is not None:
        metric = (session.client.job(ws, ref, limit=1).get("metric") or {}).get("name")
    found = session.client.job(ws, ref, metric, order)
    if metric is not None and metric not in found["metrics"]:
        hint = did_you_mean(metric, found["metrics"]) or "its trials wrote no metrics (yet)"
        raise KaosError("no_such_metric", f"job {found['id'][:8]} has no metric {metric!r}", hint=hint)
    if session.terminal.json:
        session.terminal.answer_json(found)
        return
    from kaos_cli.views import show_job

    show_job(session, ws, found, fmt, all_columns)


def _sorting(sort_by: str | None, ascending: bool, descending: bool) -> tuple[str | None, str | None]:
    """(metric, "asc" | "desc" | None) from the three options; raises KaosError when they disagree."""
    orders = {name for name, on in (("asc", ascending), ("desc", descending)) if on}
    metric = sort_by
    # A metric's own name may have a colon in it.
    if sort_by and sort_by.rpartition(":")[2] in ("asc", "desc"):
        metric, _, order = sort_by.rpartition(":")
        orders.add(order)
    if len(orders) > 1:
        raise KaosError("usage", "sorted both ways at once", hint="give one of asc and desc")
    if sort_by is not None and not metric:
        raise KaosError("usage", f"--sort-by {sort_by!r} names no metric", hint="--sort-by METRIC[:asc|desc]")
    return metric, next(iter(orders), None)


@app.command()
@command
def logs(
    session: Session,
    job: JobNamed,
    trial: TrialOption = None,
    stage: Annotated[
        str | None, typer.Option("--stage", metavar="NAME", help="Only this stage's: build or train.")
    ] = None,
    build: Annotated[bool, typer.Option("--build", help="The same as --stage build.")] = False,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Go on until the job ends; the exit code tells how it ended."),
    ] = False,
    timeout: TimeoutOption = None,
    tail: Annotated[
        int | None, typer.Option("--tail", min=1, metavar="N", help="Only the last N lines.")
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only those of the trials that failed.")] = False,
    since: Annotated[
        datetime | None,
        typer.Option(
            "--since",
            metavar="TIME",
            parser=moment,
            help="Only lines from then on: 10m ago, or 2030-01-31T12:00:00Z.",
        ),
    ] = None,
    grep: Annotated[
        re.Pattern[str] | None,
        typer.Option(
            "--grep",
            "-g",
            metavar="REGEX",
            parser=pattern,
            help="Only lines in which this is found (a regular expression of Python's).",
        ),
    ] = None,
    workspace: Workspace = None,
) -> None:
    """Show the logs of each stage and of each trial: before, while and after it runs."""
    from kaos_cli.logview import Query, logs, logs_of_failed

    if build and stage not in (None, "build"):
        raise KaosError("usage", f"--build and --stage {stage} at once", hint="give one of them")
    stage = "build" if build else stage
    if stage == "build" and trial is not None:
        raise KaosError("usage", "--build and --trial at once", hint="give one of them, or none for all logs")
    if timeout is not None and not follow:
        raise KaosError("usage", "--timeout limits the following", hint="give -f as well")
    if failed and (trial is not None or stage == "build" or follow):
        other = "-f" if follow else "--trial" if trial is not None else "--build"
        raise KaosError("usage", f"--failed and {other} at once", hint="give one of them")
    if follow and tail is not None and (since or grep):
        raise KaosError("usage", "--tail and a search cannot be followed", hint="leave out --tail, or -f")
    ws = session.workspace(workspace)
    ref = job.ref(session.home, ws)
    query = Query(trial, stage, follow, tail, since, grep)
    if code := logs_of_failed(session, ws, ref, query) if failed else logs(session, ws, ref, query, timeout):
        raise typer.Exit(code)


@app.command()
@command
def wait(
    session: Session,
    jobs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[JOB]...",
            help="Ids, starts of ids, row numbers of the last listing, or 'last' (the default).",
            show_default=False,
        ),
    ] = None,
    timeout: TimeoutOption = None,
    workspace: Workspace = None,
) -> None:
    """Wait until jobs have ended; the exit code is 0 only if every trial of each succeeded."""
    from kaos_cli.watch import wait_for_all

    ws = session.workspace(workspace)
    refs = [job_ref(session.home, ws, job, None, None) for job in jobs or [LAST]]
    if code := wait_for_all(session, ws, refs, timeout):
        raise typer.Exit(code)


@app.command()
@command
def get(
    session: Session,
    job: JobNamed,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="ID",
            help="Only this model: an id, the start of one, a trial's number, or 'best'.",
        ),
    ] = None,
    trial: TrialOption = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="What failed trials wrote, instead of models.")
    ] = False,
    code: Annotated[bool, typer.Option("--code", help="The code as well.")] = False,
    data: Annotated[bool, typer.Option("--data", help="The data as well.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder to write to; ./kaos-JOB by default."),
    ] = None,
    force: ForceOption = False,
    workspace: Workspace = None,
) -> None:
    """Write a job's models to a folder, bit for bit what the trials wrote."""
    from kaos_cli.fetching import BEST, get

    if model is not None and trial is not None:
        raise KaosError("usage", "--model and --trial at once", hint="give one of them")
    if failed and model == BEST:
        raise KaosError("usage", "--failed and the best model at once", hint="--trial N names a failed trial")
    ws = session.workspace(workspace)
    which = model if trial is None else str(trial)
    ref = job.ref(session.home, ws)
    get(session, ws, ref, which, code, data, out, force, failed)


for _name, _command in (
    ("stop", control.stop),
    ("rm", control.rm),
    ("retry", control.retry),
    ("pause", control.pause),
    ("resume", control.resume),
    ("run", control.run_),
    ("shell", control.shell),
):
    app.command(_name)(_command)
