"""``kaos source`` and ``kaos data``: the versions that were deployed, and the removal of old ones."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from kaos_cli import text
from kaos_cli.refs import remember, row_or_id
from kaos_cli.session import Format, Session, Workspace, command

Versions = Annotated[
    list[str],
    typer.Argument(
        metavar="VERSION...",
        help="Ids, starts of ids, or row numbers of the last listing.",
        show_default=False,
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="With the jobs that were made of them, their models and logs.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def _app(kind: str) -> typer.Typer:
    app = typer.Typer(no_args_is_help=True, add_completion=False)

    @app.command("list", help=f"List the versions of the {kind}, newest first; * marks the current one.")
    @command
    def list_(session: Session, workspace: Workspace = None, fmt: Format = None) -> None:
        from kaos_cli.render import Column, Table, show

        ws = session.workspace(workspace)
        found = session.client.versions(ws, kind)
        if session.terminal.json:
            session.terminal.answer_json({"versions": found})
            return
        remember(session.home, ws, [one["id"] for one in found], kind)
        if not found:
            print(f"no {kind} in workspace {ws} yet")
            return
        now = datetime.now(UTC)
        right = ("#", "files", "size", "jobs", "age")
        names = ("#", "*", "version", "name", "files", "size", "jobs", "age")
        columns = [Column(name, right=name in right, shrink=name == "name") for name in names]
        rows = [
            [
                str(number),
                "*" if one["current"] else "",
                one["id"][:8],
                text.printable(one["name"]),
                str(one["files"]),
                text.size(one["bytes"]),
                str(len(one["jobs"])),
                text.age(one["created"], now),
            ]
            for number, one in enumerate(found)
        ]
        show(
            Table(
                [*columns, Column("author", drop=1)],
                [[*row, text.printable(one["author"])] for row, one in zip(rows, found, strict=True)],
            ),
            session.terminal,
            fmt,
        )

    @app.command(
        "rm", help=f"Remove old versions of the {kind}. What models were made of stays, unless forced."
    )
    @command
    def rm(
        session: Session,
        versions: Versions,
        force: Force = False,
        yes: Yes = False,
        workspace: Workspace = None,
    ) -> None:
        from kaos_cli.removing import remove

        ws = session.workspace(workspace)
        ids = [row_or_id(session.home, ws, one, kind) for one in versions]
        remove(session, ws, {kind: ids}, force, yes)

    return app


source = _app("source")
data = _app("data")


@data.command()
@command
def check(session: Session, workspace: Workspace = None) -> None:
    """Ask whether what a manifest names has changed since it was fetched, and say which models stand on it.

    Nothing is downloaded. The exit code is 0 only if all is known to be as it was.
    """
    from kaos_cli.upstream import check

    if code := check(session, session.workspace(workspace)):
        raise typer.Exit(code)
