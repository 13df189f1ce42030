"""``kaos gc``: what nothing needs any more goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from kaos_cli import text
from kaos_cli.progress import stage
from kaos_cli.session import Session, command

app = typer.Typer(add_completion=False)

Json = Mapping[str, Any]
_KINDS = {"image": "images", "environment": "environments", "layer": "layers of images"}


@app.command("gc")
@command
def _gc(
    session: Session,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would go, and leave it where it is.")
    ] = False,
) -> None:
    """Give the space back that nothing needs any more, of all workspaces.

    This happens by itself, too, after deletions and now and then; nobody has to wait for it.
    """
    end: Json = {}
    with stage(session.terminal, "collect") as progress:
        for line in session.client.collect(dry_run):
            if now := line.get("progress"):
                progress.show(now["done"], now["total"] or None, now["stage"])
            else:
                end = line["end"]
    if session.terminal.json:
        session.terminal.answer_json(end)
        return
    rows = list(_rows(end))
    width = max((len(name) for name, _, _ in rows), default=0)
    for name, count, size in rows:
        print(f"{name:<{width}}  {count:>9,}  {text.size(size):>10}")
    if not rows:
        print("there is nothing to give back")
    else:
        print(f"{text.size(end['bytes'])} {'can go' if dry_run else 'given back'}")


def _rows(end: Json) -> Iterator[tuple[str, int, int]]:
    """(what, how many, bytes of the disk)."""
    if end["objects"] or end["freed_bytes"]:
        yield "contents", end["objects"], end["freed_bytes"]
    if end["directories"] or end["database_bytes"]:
        yield "directories, and room in the database", end["directories"], end["database_bytes"]
    for kind, name in _KINDS.items():
        found = [one["bytes"] for one in end["images"] if one["kind"] == kind]
        if found:
            yield name, len(found), sum(found)
    if end["inputs"]:
        yield "inputs laid out", end["inputs"], end["input_bytes"]
    if end["logs"]:
        yield "logs of jobs", end["logs"], end["log_bytes"]
