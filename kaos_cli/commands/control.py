"""``kaos train``, what is done to jobs and trials: stop, retry, pause; and what runs in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kaos_cli.commands.options import ForceOption, JobNamed, WaitOption, WaitTimeoutOption, limit
from kaos_cli.errors import KaosError
from kaos_cli.session import Session, Workspace, command


@command
def stop(
    session: Session,
    job: JobNamed,
    trial: Annotated[
        int | None,
        typer.Option("--trial", "-t", min=0, metavar="N", help="Only this trial; the others go on."),
    ] = None,
    workspace: Workspace = None,
) -> None:
    """Stop a job, or one trial of it; what its finished trials made is kept."""
    from kaos_cli.deploying import author

    ws = session.workspace(workspace)
    ref = job.ref(session.home, ws)
    client, who = session.client, author(session.env)
    answer = client.stop(ws, ref, who) if trial is None else client.stop_trial(ws, ref, trial, who)
    if session.terminal.json:
        session.terminal.answer_json(answer)
        return
    which = f"job {answer['id'][:8]}" if trial is None else f"trial {trial} of job {answer['job'][:8]}"
    print(f"{which} is {answer['state']}" + (f": {answer['reason']}" if answer.get("reason") else ""))


@command
def rm(
    session: Session,
    jobs: Annotated[
        list[str],
        typer.Argument(
            metavar="JOB...",
            help="Ids, starts of ids, row numbers of the last listing, or 'last'.",
            show_default=False,
        ),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Also jobs whose models (and so their logs) later jobs share.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    workspace: Workspace = None,
) -> None:
    """Remove jobs that have ended, with their models and logs; models that other jobs share stay with these.

    Code and data stay: see `kaos source rm` and `kaos data rm`.
    """
    from kaos_cli.refs import job_ref
    from kaos_cli.removing import remove

    ws = session.workspace(workspace)
    remove(session, ws, {"jobs": [job_ref(session.home, ws, job, None, None) for job in jobs]}, force, yes)


@command
def retry(
    session: Session,
    job: JobNamed,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only the trials that failed, not those that never ran.")
    ] = False,
    wait: WaitOption = False,
    wait_timeout: WaitTimeoutOption = None,
    workspace: Workspace = None,
) -> None:
    """Run what did not succeed in a job again, in a new job on the very inputs that it had.

    Finished trials are skipped. What is current (source, data, grid) stays so.
    """
    from kaos_cli.retrying import retry

    if wait_timeout is not None and not wait:
        raise KaosError("usage", "--wait-timeout limits the waiting", hint="give --wait as well")
    ws = session.workspace(workspace)
    ref = job.ref(session.home, ws)
    if code := retry(session, ws, ref, failed, wait, wait_timeout):
        raise typer.Exit(code)


EverywhereOption = Annotated[bool, typer.Option("--all", help="In all workspaces, also those made later.")]


@command
def pause(session: Session, everywhere: EverywhereOption = False, workspace: Workspace = None) -> None:
    """Start nothing new: what runs goes on to its end, the rest waits for `kaos train resume`."""
    _pause(session, workspace, everywhere, True)


@command
def resume(session: Session, everywhere: EverywhereOption = False, workspace: Workspace = None) -> None:
    """Let start what a pause keeps waiting."""
    _pause(session, workspace, everywhere, False)


def _pause(session: Session, workspace: str | None, everywhere: bool, paused: bool) -> None:
    ws = None if everywhere else session.workspace(workspace)
    answer = session.client.pause(ws, paused)
    terminal = session.terminal
    if terminal.json:
        terminal.answer_json(answer)
        return
    where = "all workspaces are" if ws is None else f"workspace {ws} is"
    if paused:
        print(f"{where} paused: what runs goes on, nothing new starts")
        terminal.hint(f"kaos train resume{' --all' if ws is None else session.flag(ws)} lets it go on")
    elif ws is not None and answer["everywhere"]:
        print(f"{where} not paused by itself, but all workspaces are: nothing starts")
        terminal.hint("kaos train resume --all lets everything go on")
    else:
        what = "nothing is paused" if ws is None else f"{where} not paused"
        print(f"{what}: what waits starts as there is room")


@command
def run_(
    session: Session,
    source: Annotated[
        Path | None,
        typer.Option("--source", "-s", metavar="SRC", help="Folder with the code; else what is deployed."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", metavar="DATA", help="Folder with the data; else what is deployed."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter; may be given more than once."),
    ] = None,
    cpu: Annotated[float | None, typer.Option("--cpu", metavar="F", help="Cores; else as deployed.")] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="STR", help="Memory: 512Mi, 4G, …; else as deployed.")
    ] = None,
    gpu: Annotated[int | None, typer.Option("--gpu", metavar="N", help="GPUs; else as deployed.")] = None,
    tries: Annotated[
        int | None,
        typer.Option(
            "--tries", metavar="N", help="Run it up to so many times until it succeeds; else as deployed."
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="TIME", parser=limit, help="End it if it takes longer."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder for what it writes; else that is not kept."),
    ] = None,
    force: ForceOption = False,
    workspace: Workspace = None,
) -> None:
    """Run one trial here and now, in the very environment that a deploy would give it.

    Nothing is deployed and no model is stored. The exit code is the trial's; Ctrl-C ends it.
    """
    from kaos_cli.foreground import Run, run
    from kaos_cli.inputs import parse_settings

    ws = session.workspace(workspace)
    params = parse_settings(settings or [])
    if code := run(session, ws, Run(source, data, params, cpu, memory, gpu, tries, timeout, out, force)):
        raise typer.Exit(code)


@command
def shell(
    session: Session,
    job: JobNamed,
    trial: Annotated[int, typer.Option("--trial", "-t", min=0, metavar="N", help="The trial.")] = 0,
    workspace: Workspace = None,
) -> None:
    """Open a shell where a trial was: same image, inputs, parameters and limits.

    The output folder is as the trial left it; what is done in there is lost. The exit code is the shell's.
    """
    from kaos_cli.foreground import shell

    ws = session.workspace(workspace)
    if code := shell(session, ws, job.ref(session.home, ws), trial):
        raise typer.Exit(code)
