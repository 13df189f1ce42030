"""``kaos du``: what takes the disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from kaos_cli import text
from kaos_cli.render import Column, Table, show
from kaos_cli.session import Session, command

app = typer.Typer(add_completion=False)

Json = Mapping[str, Any]
_KINDS = ("data", "models", "images", "inputs", "logs", "total")


@app.command("du")
@command
def _du(session: Session) -> None:
    """Show what takes the disk: by workspace what only it has, then what several share, and what can go.

    Images count with their environments and layers; inputs are those laid out for trials, and what fetches of
    remote data keep: caches.
    """
    use = session.client.disk()
    if session.terminal.json:
        session.terminal.answer_json(use)
        return
    rows = [_row(name, share) for name, share in use["workspaces"].items()]
    rows += [_row("(shared)", use["shared"]), _row("(can go)", use["can_go"])]
    rows.append(["(database)", "", "", "", "", "", text.size(use["database"])])
    shares = [*use["workspaces"].values(), use["shared"], use["can_go"]]
    sums = {kind: sum(share[kind] for share in shares) for kind in _KINDS}
    rows.append(_row("(all)", {**sums, "total": use["total"]}))
    columns = [Column("workspace"), *(Column(kind, right=True) for kind in _KINDS)]
    show(Table(columns, rows), session.terminal)
    if use["can_go"]["total"]:
        session.terminal.hint("kaos gc gives back at once what can go; it happens by itself, too")


def _row(name: str, share: Json) -> list[str]:
    return [name, *(text.size(share[kind]) if share[kind] else "" for kind in _KINDS)]
