"""``kaos token``: with which others use this backend."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from kaos_cli import text
from kaos_cli.commands.options import duration
from kaos_cli.session import Format, Session, command

app = typer.Typer(no_args_is_help=True, add_completion=False)

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Who it is for; what is done with it has this name.", show_default=False
    ),
]


class Rights(StrEnum):
    """What a token is good for."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@app.command()
@command
def create(
    session: Session,
    name: Name,
    rights: Annotated[
        Rights, typer.Option("--rights", "-r", help="See and fetch; also deploy, stop, remove; or all.")
    ] = Rights.WRITE,
    workspaces: Annotated[
        list[str] | None,
        typer.Option(
            "--workspace", "-w", metavar="NAME", help="Only for this one; more than once for several."
        ),
    ] = None,
    expires: Annotated[
        float | None,
        typer.Option("--expires", metavar="TIME", parser=duration, help="Holds so long: 12h, 30d."),
    ] = None,
) -> None:
    """Make a token; it is told this once only, on stdout."""
    from kaos_cli.deploying import author

    made = session.client.create_token(
        {
            "name": name,
            "rights": rights.value,
            "workspaces": workspaces or None,
            "expires_s": expires,
            "author": author(session.env),
        }
    )
    if session.terminal.json:
        session.terminal.answer_json(made)
        return
    print(made["token"])
    session.terminal.say(f"token {name}: {_what(made)}; nobody can tell it again")
    session.terminal.hint("kaos context add NAME URL, on the other machine, asks for it")


@app.command("list")
@command
def list_(session: Session, fmt: Format = None) -> None:
    """List the tokens, without what has to be sent."""
    found = session.client.tokens()
    if session.terminal.json:
        session.terminal.answer_json({"tokens": found})
        return
    from kaos_cli.render import Column, Table, show

    now = datetime.now(UTC)
    columns = [Column("token"), Column("rights"), Column("workspaces", shrink=True)]
    columns += [Column("age", right=True), Column("expires"), Column("by", drop=1)]
    rows = [
        [
            text.printable(one["name"]),
            one["rights"],
            ", ".join(one["workspaces"] or ["all"]),
            text.age(one["created"], now),
            _expiry(one["expires"], now),
            text.printable(one["created_by"]),
        ]
        for one in found
    ]
    show(Table(columns, rows), session.terminal, fmt)


@app.command()
@command
def revoke(session: Session, name: Name) -> None:
    """End a token, at once, and what goes on with it."""
    ended = session.client.revoke_token(name)
    if session.terminal.json:
        session.terminal.answer_json(ended)
        return
    print(f"token {name} is revoked")


def _what(token: dict[str, Any]) -> str:
    where = "in " + ", ".join(token["workspaces"]) if token["workspaces"] else "in all workspaces"
    until = f", until {token['expires']}" if token["expires"] else ""
    return f"{token['rights']} {where}{until}"


def _expiry(expires: str | None, now: datetime) -> str:
    moment = text.parse_time(expires)
    if moment is None:
        return "never"
    if moment <= now:
        return "expired"
    # The other way round, it is as long from now.
    return "in " + text.age((now - (moment - now)).isoformat(), now)
