"""``kaos template``: example projects to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kaos_cli import templates
from kaos_cli.errors import KaosError
from kaos_cli.session import Format, Session, command

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command("list")
@command
def list_(session: Session, fmt: Format = None) -> None:
    """List the templates."""
    found = templates.available(templates.folder())
    if session.terminal.json:
        session.terminal.answer_json({"templates": [template.as_json() for template in found]})
        return
    from kaos_cli.render import Column, Table, show

    columns = [Column("name"), Column("title"), Column("description", shrink=True)]
    show(Table(columns, [[t.name, t.title, t.description] for t in found]), session.terminal, fmt)


@app.command()
@command
def get(
    session: Session,
    name: Annotated[str | None, typer.Option("--name", "-n", help="The template to copy.")] = None,
    template: Annotated[
        str | None, typer.Argument(help="The same, without --name.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder to copy it to; ./NAME by default.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
) -> None:
    """Copy a template into a folder and show how to deploy it."""
    wanted = name or template
    if wanted is None:
        raise KaosError(
            "usage", "which template?", hint="kaos template get --name NAME; kaos template list shows them"
        )
    if name and template and name != template:
        raise KaosError("usage", f"two templates were named: {name}, {template}", hint="name one")
    found = templates.find(templates.folder(), wanted)
    target = out if out is not None else Path(found.name)
    files = templates.copy(found, target, force)
    deploy = templates.next_commands(target)
    if session.terminal.json:
        session.terminal.answer_json(
            {
                "template": found.name,
                "out": str(target.absolute()),
                "files": list(map(str, files)),
                "next": [deploy],
            }
        )
        return
    print(f"{found.name}: {len(files)} files in {target}")
    session.terminal.hint(f"{deploy} trains it")
