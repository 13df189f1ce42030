"""``kaos context`` and ``kaos init``: backends elsewhere, by name."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from kaos_cli import contexts, text
from kaos_cli.contexts import LOCAL, Context
from kaos_cli.errors import KaosError
from kaos_cli.session import Format, Session, command

app = typer.Typer(no_args_is_help=True, add_completion=False)
init = typer.Typer(add_completion=False)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The context.", show_default=False)]
CaCert = Annotated[
    Path | None,
    typer.Option(
        "--ca-cert", metavar="FILE", help="What signs the backend's certificate, in PEM; it is copied."
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token", "-t", metavar="TOKEN", help="The token; - reads it from stdin. Else it is asked for."
    ),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Allow an http:// address that is not of this machine.")
]
NoCheck = Annotated[bool, typer.Option("--no-check", help="Add it without asking the backend.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a context of this name with another address.")]


@app.command()
@command
def add(
    session: Session,
    name: Name,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Its address, https://HOST:PORT.", show_default=False)
    ],
    ca_cert: CaCert = None,
    token: Token = None,
    insecure: Insecure = False,
    no_check: NoCheck = False,
    force: Force = False,
) -> None:
    """Add a backend elsewhere, or another token for it."""
    context, caller = _add(session, name, url, ca_cert, token, insecure, no_check, force)
    if session.terminal.json:
        session.terminal.answer_json({"added": context.name, "url": context.url, "caller": caller})
        return
    print(f"context {name} is {context.url}{_as(caller)}")
    if session.home.contexts()[1] != name:
        session.terminal.hint(f"kaos context use {name} makes it the one that commands use")


@init.command("init")
@command
def _init(
    session: Session,
    endpoint: Annotated[
        str, typer.Option("--endpoint", "-e", metavar="URL", help="The backend's address, https://HOST:PORT.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Of the context; the host's by default.")
    ] = None,
    ca_cert: CaCert = None,
    token: Token = None,
    insecure: Insecure = False,
    no_check: NoCheck = False,
    force: Force = False,
) -> None:
    """Use a backend elsewhere from now on: add a context, choose it."""
    name = name or _name_of(endpoint)
    context, caller = _add(session, name, endpoint, ca_cert, token, insecure, no_check, force)
    session.home.use_context(name)
    if session.terminal.json:
        session.terminal.answer_json({"current": context.name, "url": context.url, "caller": caller})
        return
    print(f"using context {name}: {context.url}{_as(caller)}")
    _tell_overriding(session)
    session.terminal.hint(f"kaos context use {LOCAL} goes back to the backend of this machine")


@app.command("list")
@command
def list_(session: Session, fmt: Format = None) -> None:
    """List the contexts; * marks the one that commands use."""
    known, current = session.home.contexts()
    current = session.home.chosen or current
    tokens = contexts.tokens(session.home.path)
    if session.terminal.json:
        found = [_told(one, name in tokens) for name, one in sorted(known.items())]
        session.terminal.answer_json({"contexts": found, "current": current})
        return
    from kaos_cli.render import Column, Table, show

    columns = [Column("*"), Column("context"), Column("url"), Column("token"), Column("workspace", drop=1)]
    rows = [["*" if current == LOCAL else "", LOCAL, f"this machine, {session.home.path}", "", ""]]
    rows += [
        [
            "*" if name == current else "",
            name,
            text.printable(one.url),
            "yes" if name in tokens else "none",
            text.printable(one.workspace),
        ]
        for name, one in sorted(known.items())
    ]
    show(Table(columns, rows), session.terminal, fmt)
    if session.env.get("KAOS_ENDPOINT") and not session.home.chosen:
        session.terminal.warn("KAOS_ENDPOINT is set in the environment and goes before the context in use")


@app.command()
@command
def use(session: Session, name: Name) -> None:
    """Let commands speak to a context; local is the backend of this machine."""
    session.home.use_context(name)
    if session.terminal.json:
        session.terminal.answer_json({"current": name})
        return
    print(f"using context {name}")
    _tell_overriding(session)


@app.command()
@command
def rm(session: Session, name: Name) -> None:
    """Forget a context and its token."""
    if name == LOCAL:
        raise KaosError("usage", f"{LOCAL} is the backend of this machine, and always there")
    used = session.home.remove_context(name)
    if session.terminal.json:
        session.terminal.answer_json({"removed": name, "current": session.home.contexts()[1]})
        return
    print(f"context {name} is forgotten")
    if used:
        print(f"it was the one that commands used; they use {LOCAL} now")


def _add(
    session: Session,
    name: str,
    url: str,
    ca_cert: Path | None,
    token: str | None,
    insecure: bool,
    no_check: bool,
    force: bool,
) -> tuple[Context, dict[str, Any] | None]:
    """The context as it is kept, and what the backend says of its token (None: it was not asked)."""
    from kaos_cli import remote
    from kaos_cli.transport import Transport

    contexts.check_name(name)
    url = contexts.check_url(url, insecure or remote.is_insecure(session.env))
    signed_by = contexts.read_ca(ca_cert) if ca_cert is not None else ""
    known = session.home.contexts()[0]
    if (before := known.get(name)) is not None:
        if before.url != url and not force:
            raise KaosError(
                "exists",
                f"context {name} is {before.url}",
                hint="--force replaces it; another name keeps both",
            )
        signed_by = signed_by or (before.ca_cert if before.url == url else "")
    context = Context(name, url, signed_by, insecure=insecure and url.startswith("http:"))
    secret = _read_token(session, token, name)
    caller: dict[str, Any] | None = None
    if not no_check:
        transport = Transport(remote.of_context(context, secret, insecure))
        try:
            caller = dict(remote.ask(transport).get("caller") or {})
        except KaosError as error:
            if error.code == "backend_unavailable":
                error.hint += "\n--no-check adds it all the same"
            raise
        finally:
            transport.close()
    session.home.add_context(context, secret)
    return context, caller


def _read_token(session: Session, given: str | None, name: str) -> str:
    """From the option, stdin, KAOS_TOKEN or the terminal, in this order."""
    if given is not None and given != "-":
        token = given
    elif given == "-":
        token = sys.stdin.readline()
    elif (token := session.env.get("KAOS_TOKEN", "")) == "" and sys.stdin.isatty():
        token = typer.prompt(f"Token for {name}", hide_input=True, err=True)
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise KaosError(
            "usage",
            "that is no token" if token else f"context {name} needs a token",
            hint="--token - reads it from stdin; `kaos token create NAME` on the backend's machine makes one",
        )
    return token


def _name_of(url: str) -> str:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", host).strip("-.") or "backend"
    return f"{name}-elsewhere" if name == LOCAL else name


def _as(caller: dict[str, Any] | None) -> str:
    if not caller:
        return ""
    where = caller.get("workspaces")
    return f", as {caller.get('name')} ({caller.get('rights')}{' in ' + ', '.join(where) if where else ''})"


def _told(context: Context, has_token: bool) -> dict[str, Any]:
    return {
        "name": context.name,
        "url": context.url,
        "ca_cert": bool(context.ca_cert),
        "token": has_token,
        "workspace": context.workspace or None,
        "insecure": context.insecure,
    }


def _tell_overriding(session: Session) -> None:
    for name in ("KAOS_CONTEXT", "KAOS_ENDPOINT"):
        if overriding := session.env.get(name):
            session.terminal.warn(f"{name}={overriding} is set in the environment and goes before it")
            return
