"""What every command shares: its options, its terminal, its workspace and its client."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, get_type_hints

import typer

from kaos_cli.config import Home
from kaos_cli.errors import KaosError, did_you_mean
from kaos_cli.terminal import Terminal, detect, while_read

if TYPE_CHECKING:
    from kaos_cli.client import KaosClient
    from kaos_cli.transport import Transport

P = ParamSpec("P")

Workspace = Annotated[
    str | None,
    typer.Option(
        "--workspace",
        "-w",
        metavar="NAME",
        envvar="KAOS_WORKSPACE",
        help="Workspace to use instead of the one set.",
        show_envvar=True,
    ),
]
Format = Annotated[
    str | None,
    typer.Option("--format", metavar="FORMAT", help="A tabulate format: plain, github, tsv, …"),
]
AllColumns = Annotated[bool, typer.Option("--all", help="All columns, also those that do not fit.")]
_Context = Annotated[
    str,
    typer.Option(
        "--context",
        metavar="NAME",
        envvar="KAOS_CONTEXT",
        help="Backend to use instead of the one set; local is that of this machine.",
        show_envvar=True,
        show_default=False,
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Answer in JSON, and nothing else on stdout.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no hints.")]
_Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
_COMMON: dict[str, tuple[Any, Any]] = {
    "context": ("", _Context),
    "as_json": (False, _Json),
    "quiet": (False, _Quiet),
    "debug": (False, _Debug),
}


@dataclass
class Session:
    """One run of one command. The client connects (and starts the local backend) when it is first used."""

    home: Home
    env: Mapping[str, str]
    terminal: Terminal
    used_workspace: str | None = None
    _client: KaosClient | None = field(default=None, repr=False)

    @property
    def client(self) -> KaosClient:
        if self._client is None:
            from kaos_cli.client import KaosClient

            self._client = KaosClient(self._ways(), self.terminal.say)
        return self._client

    def elsewhere(self) -> str:
        """What the backend that this command speaks to is called, "" for that of this machine."""
        if self.env.get("KAOS_ENDPOINT") and not self.home.chosen:
            return "KAOS_ENDPOINT"
        context = self.home.context()
        return "" if context is None else f"context {context.name}"

    def _ways(self) -> Callable[[], Transport]:
        """What connects, and connects again."""
        if self.elsewhere():
            from kaos_cli import remote

            endpoint = remote.endpoint_of(self.home, self.env)
            assert endpoint is not None
            # What is out of reach at first is told at once; what is lost later may be back soon.
            far = chain([remote.connect], repeat(remote.reconnect))
            return lambda: next(far)(endpoint, self.terminal.say)
        from kaos_cli.local import connect, reconnect

        # What is down at first is started; what is lost later only if it crashed.
        ways = chain([connect], repeat(reconnect))
        return lambda: next(ways)(self.home, self.env, self.terminal.say)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def workspace(self, given: str | None) -> str:
        self.used_workspace = self.home.workspace(given)
        return self.used_workspace

    def flag(self, ws: str) -> str:
        """What makes a suggested command mean the same workspace: ``" -w NAME"``, or "" for the set one."""
        context = f" --context {self.home.chosen}" if self.home.chosen else ""
        return context + ("" if ws == self.home.shown_workspace(None) else f" -w {ws}")


def _suggest(session: Session, error: KaosError) -> None:
    """Add to an unknown workspace's error which one was probably meant, if the backend can tell."""
    name = str(error.fields.get("name") or session.used_workspace or "")
    with contextlib.suppress(KaosError):
        known = did_you_mean(name, [one["name"] for one in session.client.workspaces()])
        error.hint = f"{known + chr(10) if known else ''}kaos workspace create {name} makes it"


def command(function: Callable[Concatenate[Session, P], None]) -> Callable[..., None]:
    """A Typer callback from ``function(session, …)``: adds what all commands have; makes the session.

    A parameter that is a NamedTuple stands for its fields, which are parameters of the command line.
    """
    own = _parameters(function)[1:]
    groups = {p.name: p.annotation for p in own if hasattr(p.annotation, "_fields")}

    @functools.wraps(function)
    def callback(*args: Any, context: str, as_json: bool, quiet: bool, debug: bool, **kwargs: Any) -> None:
        # main() has read --debug from the arguments: it must hold even where parsing them fails.
        del debug
        env = os.environ
        home = replace(Home.of(env), chosen=context)
        session = Session(home, env, detect(env, quiet, as_json))
        try:
            for name, group in groups.items():
                kwargs[name] = group(**{field: kwargs.pop(field) for field in group._fields})
            with while_read():
                function(session, *args, **kwargs)
        except KaosError as error:
            if error.code == "no_such_workspace":
                _suggest(session, error)
            if quiet and not as_json:
                error.hint = ""
            raise
        finally:
            session.close()

    typed = [one for p in own for one in (_parameters(p.annotation) if p.name in groups else [p])]
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
        for name, (default, hint) in _COMMON.items()
    ]
    parameters = typed + common
    callback.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    callback.__annotations__ = {p.name: p.annotation for p in parameters}
    del callback.__wrapped__
    return callback


def _parameters(told: Callable[..., Any]) -> list[inspect.Parameter]:
    """Those of a function or class, with their types as they are meant."""
    hints = get_type_hints(told, include_extras=True)
    return [p.replace(annotation=hints[p.name]) for p in inspect.signature(told).parameters.values()]
