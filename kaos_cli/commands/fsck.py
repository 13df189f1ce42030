"""``kaos fsck``: is what is stored what was put in?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from kaos_cli import text
from kaos_cli.errors import FAILED
from kaos_cli.progress import stage
from kaos_cli.session import Session, command

app = typer.Typer(add_completion=False)

Json = Mapping[str, Any]
SENT_WITH = {
    "source": "-s SRC",
    "data": "-d DATA",
    "hyper": "-h HYPER.json",
    "manifest": "-m FILE",
    "fetch": "--refresh",
}
"""The option that sends the content of a repo again."""


@app.command("fsck")
@command
def _fsck(
    session: Session,
    repair: Annotated[
        bool, typer.Option("--repair", help="Restore what the machine has another copy of.")
    ] = False,
) -> None:
    """Read all that is stored, of all workspaces, and compare it with its hashes.

    The exit code is 1 if something is damaged and was not repaired.
    """
    findings: list[Json] = []
    end: Json = {}
    with stage(session.terminal, "check", in_bytes=True) as progress:
        for line in session.client.check(repair):
            if now := line.get("progress"):
                progress.show(now["bytes"], now["bytes_total"])
            elif found := line.get("finding"):
                findings.append(found)
            else:
                end = line["end"]
    if session.terminal.json:
        session.terminal.answer_json({**end, "findings": findings})
    else:
        _tell(session, findings, end, repair)
    if end["damaged"] > end["repaired"]:
        raise typer.Exit(FAILED)


def _tell(session: Session, findings: Sequence[Json], end: Json, repair: bool) -> None:
    for found in findings:
        print(text.printable(f"{'repaired' if found['repaired'] else 'damaged':<8}  {_where(found)}"))
        print(text.printable(f"          {found['what']}"))
    read = f"{text.objects(end['objects'])}, {text.size(end['bytes'])}"
    if not end["damaged"]:
        print(f"{read}: nothing is damaged")
        return
    print(f"{read}: {end['damaged']:,} damaged, {end['repaired']:,} of them repaired")
    session.terminal.hint(*_cures([found for found in findings if not found["repaired"]], repair))


def _where(found: Json) -> str:
    if not found["repo"]:
        return f"object {found['object']}" if found["object"] else "the store itself"
    commit = f" at commit {found['commit'][:12]}" if found["commit"] else ""
    return f"{found['path'] or '/'} in {found['workspace']}/{found['repo']}{commit}"


def _cures(lost: Sequence[Json], repair: bool) -> list[str]:
    """What brings back what is lost, a line for each workspace and kind."""
    lines = ["kaos fsck --repair restores what has a copy on this machine"] if lost and not repair else []
    for ws, repo in dict.fromkeys((found["workspace"], found["repo"]) for found in lost):
        if option := SENT_WITH.get(repo):
            lines.append(f"kaos train deploy {option} -w {ws} of the same content heals it")
        elif repo == "train":
            lines.append(f"models of {ws} that are lost have to be trained again")
    return lines
