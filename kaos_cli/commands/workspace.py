"""``kaos workspace``: places of their own for code, data, grids and models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from kaos_cli import text
from kaos_cli.errors import KaosError
from kaos_cli.session import Format, Session, command
from kaos_formats.names import DEFAULT_WORKSPACE, check_workspace

app = typer.Typer(no_args_is_help=True, add_completion=False)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The workspace.", show_default=False)]
MaybeName = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="The workspace; the current one by default.", show_default=False),
]


@app.command()
@command
def create(
    session: Session,
    name: Name,
    description: Annotated[str, typer.Option("--description", "-d", help="What it is for.")] = "",
) -> None:
    """Create a workspace."""
    created = session.client.create_workspace(check_workspace(name), description)
    if session.terminal.json:
        session.terminal.answer_json(created)
        return
    print(f"workspace {name} created")
    session.terminal.hint(f"kaos workspace set {name} makes it the one that commands use")


@app.command("list")
@command
def list_(session: Session, fmt: Format = None) -> None:
    """List the workspaces; * marks the one that commands use."""
    found = session.client.workspaces()
    current = session.home.shown_workspace(session.env.get("KAOS_WORKSPACE"))
    if session.terminal.json:
        session.terminal.answer_json({"workspaces": found, "current": current})
        return
    from kaos_cli.render import Column, Table, show

    now = datetime.now(UTC)
    columns = [Column("*"), Column("name"), Column("jobs", right=True), Column("age", right=True)]
    rows = [
        [
            "*" if one["name"] == current else "",
            one["name"],
            str(one["jobs"]),
            text.age(one.get("created"), now),
            text.printable(one.get("description") or ""),
        ]
        for one in found
    ]
    show(Table([*columns, Column("description", shrink=True)], rows), session.terminal, fmt)


@app.command("set")
@command
def set_(session: Session, name: Name) -> None:
    """Make a workspace the one that commands use."""
    session.used_workspace = check_workspace(name)
    session.client.workspace(name)
    session.home.set_workspace(None if name == DEFAULT_WORKSPACE else name)
    if session.terminal.json:
        session.terminal.answer_json({"current": name})
        return
    print(f"using workspace {name}")
    if overriding := session.env.get("KAOS_WORKSPACE"):
        session.terminal.warn(f"KAOS_WORKSPACE={overriding} is set in the environment and goes before it")


@app.command()
@command
def info(session: Session, name: MaybeName = None) -> None:
    """Show what a workspace holds: current code, data and grid, and its last job."""
    ws = session.workspace(name or session.env.get("KAOS_WORKSPACE"))
    found = session.client.workspace(ws)
    if session.terminal.json:
        session.terminal.answer_json(found)
        return
    print("\n".join(_lines(found, datetime.now(UTC))))


def _lines(found: dict[str, Any], now: datetime) -> list[str]:
    from kaos_cli.views import bundle_line

    lines = [f"workspace  {found['name']}"]
    for kind in ("source", "data"):
        bundle = found.get(kind)
        manifest = found.get("manifest") if kind == "data" else None
        lines.append(
            f"{kind:<9}  {bundle_line(bundle, manifest)}, "
            f"by {bundle['author']} {text.age(bundle.get('created'), now)} ago"
            if bundle
            else f"{kind:<9}  none yet"
        )
    if grid := found.get("hyper"):
        lines.append(f"grid       {grid['id'][:6]}  {text.trials(grid['trials'])}")
    else:
        lines.append("grid       none: one trial with the code's own defaults")
    lines.append(f"jobs       {found['jobs']}")
    if last := found.get("last_job"):
        lines.append(
            f"last job   {last['id'][:8]}  {last['state']}  {text.age(last.get('created'), now)} ago"
        )
    return [text.printable(line) for line in lines]


@app.command()
@command
def kill(
    session: Session,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a workspace with everything in it."""
    session.used_workspace = check_workspace(name)
    found = session.client.workspace(name)
    if not yes:
        # The answer may take a while, and an idle connection does not last.
        session.client.close()
        _confirm(name, int(found["jobs"]))
    was_current = session.home.workspace(session.env.get("KAOS_WORKSPACE")) == name
    deleted = session.client.delete_workspace(name)
    if session.home.workspace(None) == name:
        session.home.set_workspace(None)
    if session.terminal.json:
        session.terminal.answer_json(deleted | {"current": session.home.workspace(None)})
        return
    left = "empty" if name == DEFAULT_WORKSPACE else "gone"
    print(f"workspace {name} is {left} ({text.jobs(found['jobs'])})")
    if session.env.get("KAOS_WORKSPACE") == name:
        session.terminal.warn(f"KAOS_WORKSPACE={name} is still set: commands will not find that workspace")
    elif was_current and name != DEFAULT_WORKSPACE:
        print(f"it was the one that commands used; they use {DEFAULT_WORKSPACE} now")
        session.terminal.hint("kaos workspace set NAME chooses another")


def _confirm(name: str, jobs: int) -> None:
    import sys

    if not sys.stdin.isatty():
        raise KaosError(
            "usage",
            f"deleting workspace {name} needs a yes",
            hint=f"kaos workspace kill {name} -y deletes it",
        )
    question = f"Delete workspace {name} with its {text.jobs(jobs)}, their models, code and data?"
    if not typer.confirm(question, default=False, err=True):
        raise typer.Exit(1)
