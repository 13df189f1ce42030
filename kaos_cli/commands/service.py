"""``kaos up``, ``kaos down``, ``kaos status``: the local backend and its engine."""

from __future__ import annotations

import shlex
from enum import StrEnum
from typing import Annotated, Any

import typer

from kaos_cli import text
from kaos_cli.errors import KaosError
from kaos_cli.session import Session, command

up, down, status = (typer.Typer(add_completion=False) for _ in range(3))


class Runtime(StrEnum):
    """What trials run in."""

    DOCKER = "docker"
    PROCESS = "process"


@up.command("up")
@command
def _up(
    session: Session,
    runtime: Annotated[
        Runtime | None,
        typer.Option(
            help="What trials run in from now on; without it as before, at first docker where it answers."
        ),
    ] = None,
) -> None:
    """Start the local backend and engine; every command does it if needed."""
    _only_here(session, "up")
    if runtime is not None:
        session.env = {**session.env, "KAOS_RUNTIME": runtime}
    found = session.client.status()
    if runtime is not None and found["runtime"]["name"] != runtime:
        raise KaosError(
            "usage",
            f"kaos is up already, with the runtime {found['runtime']['name']}",
            hint=f"kaos down && kaos up --runtime {runtime}; what has run stays as it is",
        )
    if session.terminal.json:
        session.terminal.answer_json({"up": True} | found)
        return
    print(f"kaos is up at {found['url']} (pid {found['pid']})")


@down.command("down")
@command
def _down(session: Session) -> None:
    """Stop the local backend and engine; what runs is interrupted and goes on at the next `kaos up`."""
    from kaos_cli.local import active_jobs, stop

    _only_here(session, "down")
    interrupted = active_jobs(session.home)
    stopped = stop(session.home)
    if session.terminal.json:
        session.terminal.answer_json({"stopped": stopped, "interrupted": interrupted})
        return
    for job in interrupted:
        print(f"job {job['id'][:8]} in {job['workspace']}, {job['state']}, goes on at the next kaos up")
    print("stopped " + " and ".join(stopped) if stopped else "nothing was running")


@status.command("status")
@command
def _status(
    session: Session,
    env: Annotated[
        bool,
        typer.Option(
            "--env", help="Print the exports with which any pachyderm-sdk program reaches the engine."
        ),
    ] = False,
) -> None:
    """What runs, where it is and what it offers."""
    if env:
        variables = session.client.env()
        if session.terminal.json:
            session.terminal.answer_json({"env": variables})
            return
        for name, value in variables.items():
            print(f"export {name}={shlex.quote(value)}")
        return
    if not session.elsewhere() and not _is_up(session):
        if session.terminal.json:
            session.terminal.answer_json({"up": False, "home": str(session.home.path)})
            return
        print(f"kaos is down (home {session.home.path})")
        session.terminal.hint("kaos up starts it; so does any command that needs it")
        return
    found = session.client.status()
    if session.terminal.json:
        session.terminal.answer_json({"up": True} | found)
        return
    from kaos_cli.queue import device_lines, queue_lines

    workspace = session.home.shown_workspace(session.env.get("KAOS_WORKSPACE"))
    devices = device_lines(found["machine"].get("devices") or [])
    queue = queue_lines(found["jobs"], session.terminal.width)
    print("\n".join([*_lines(found, workspace), *devices, *queue]))


def _only_here(session: Session, name: str) -> None:
    """Raises KaosError (usage) where the command would be about another machine."""
    if elsewhere := session.elsewhere():
        raise KaosError(
            "usage",
            f"{elsewhere} is a backend elsewhere, which is started and stopped on its own machine",
            hint=f"kaos {name} --context local is about the one of this machine",
        )


def _is_up(session: Session) -> bool:
    from kaos_cli.local import find

    try:
        transport = find(session.home)
    except KaosError:
        # Something is there, if not well: asking it properly says what is wrong.
        return True
    if transport is None:
        return False
    transport.close()
    return True


def _lines(found: dict[str, Any], workspace: str) -> list[str]:
    engine, runtime, machine = found["engine"], found["runtime"], found["machine"]
    memory = machine.get("memory_bytes")
    amounts = [f"{machine['cpus']:g} cores"] if machine.get("cpus") else []
    amounts += [text.size(memory) + " memory"] if memory else []
    amounts += [f"{machine.get('gpus') or 0} GPUs"]
    lines = [
        f"backend    {found['url']} (pid {found['pid']}, version {found['kaos_version']})",
        *([f"serves     {found['serves']}"] if found["serves"] else []),
        f"home       {found['home']}",
        f"engine     {engine['kind']}, {engine['address']}",
        f"runtime    {runtime['name']}, isolation: {runtime['isolation']}",
        *[f"           {note}" for note in runtime.get("notes") or []],
        f"machine    {', '.join(amounts)}",
    ]
    if free := (found.get("store") or {}).get("free_bytes"):
        lines.append(f"store      {text.size(free)} free")
    lines.append(f"workspace  {workspace or '? (config.json cannot be read)'}")
    paused = found["paused"]
    if paused["everywhere"] or paused["workspaces"]:
        where = "all workspaces" if paused["everywhere"] else ", ".join(paused["workspaces"])
        lines.append(f"paused     {where}: nothing new starts (kaos train resume)")
    return lines
