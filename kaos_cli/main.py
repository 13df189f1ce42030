"""The ``kaos`` program: its commands, and the one place where an error becomes a message and an exit code.

Command groups are imported when one of their commands runs; ``kaos --help`` imports none of them.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, NamedTuple, NoReturn

import typer
import typer.main
from typer.core import TyperGroup

from kaos_cli import __version__
from kaos_cli.errors import FAILED, INTERRUPTED, OK, USAGE, KaosError
from kaos_cli.terminal import abandon, open_standard_streams
from kaos_formats.errors import KaosError as FormatError

UsageError: Any = typer.BadParameter.__bases__[0]
ClickException: Any = UsageError.__bases__[0]


class Group(NamedTuple):
    module: str
    attribute: str
    help: str


# The line shown by `kaos --help` and the group's own help are this one text.
GROUPS = {
    "train": Group(
        "kaos_cli.commands.train", "app", "Deploy code, data and grids; see, follow and fetch what they made."
    ),
    "source": Group("kaos_cli.commands.versions", "source", "Versions of the code: list, remove."),
    "data": Group("kaos_cli.commands.versions", "data", "Versions of the data: list, remove."),
    "workspace": Group("kaos_cli.commands.workspace", "app", "Create, choose and delete workspaces."),
    "context": Group("kaos_cli.commands.context", "app", "Backends elsewhere: add, list, use, forget."),
    "backend": Group(
        "kaos_cli.commands.backend", "app", "Let others use this machine's backend: serve, in the foreground."
    ),
    "token": Group(
        "kaos_cli.commands.token", "app", "Tokens with which others use this backend: create, list, revoke."
    ),
    "init": Group(
        "kaos_cli.commands.context",
        "init",
        "Use a backend elsewhere from now on: add a context, choose it.",
    ),
    "template": Group("kaos_cli.commands.template", "app", "Example projects to start from."),
    "up": Group(
        "kaos_cli.commands.service",
        "up",
        "Start the local backend and engine; every command does it if needed.",
    ),
    "down": Group("kaos_cli.commands.service", "down", "Stop the local backend and engine; nothing is lost."),
    "status": Group("kaos_cli.commands.service", "status", "What runs, where it is and what it offers."),
    "fsck": Group(
        "kaos_cli.commands.fsck", "app", "Read all that is stored and compare it with its hashes; repair it."
    ),
    "du": Group("kaos_cli.commands.du", "app", "Show what takes the disk, by workspace, and what can go."),
    "gc": Group("kaos_cli.commands.gc", "app", "Give the space back that nothing needs any more."),
}


def load(name: str) -> Any:
    """The real command of one of GROUPS."""
    group = GROUPS[name]
    app = getattr(importlib.import_module(group.module), group.attribute)
    app.info.help = app.info.help if isinstance(app.info.help, str) else group.help
    loaded = typer.main.get_command(app)
    loaded.name = name
    loaded.help = loaded.help or group.help
    return loaded


class LazyGroup(TyperGroup):
    """The top-level group: knows its commands' names and help lines, loads the one that runs."""

    listing = False

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # Typer looks here for a suggestion when a command is mistyped; the values are never used.
        self.commands = dict.fromkeys(GROUPS, self)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(GROUPS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in GROUPS:
            return None
        if self.listing:
            return TyperGroup(name=cmd_name, help=GROUPS[cmd_name].help)
        return load(cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self.listing = False


def _version(wanted: bool) -> None:
    if wanted:
        print(f"kaos {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=LazyGroup,
    name="kaos",
    pretty_exceptions_enable=False,
    # All commands inherit it, but for the one that has a -h of its own.
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Versioned, reproducible, parallel training: folders of code and data, a grid of parameters."""


def build() -> Any:
    """The whole command line as a click command."""
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    open_standard_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = given[: given.index("--")] if "--" in given else given
    code = run(
        given, as_json="--json" in options, debug="--debug" in options or bool(os.environ.get("KAOS_DEBUG"))
    )
    code = _flush() or code
    # All is closed and written by now. What Python does on its way out takes as long as a small command.
    os._exit(code)


def _flush() -> int:
    """Write out what was printed; the exit code where that fails (Python would fail again on its way out)."""
    code = OK
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            abandon(stream)
            # A reader that has seen enough (`| head`) is no failure; a full disk is.
            if not isinstance(error, BrokenPipeError) and stream is sys.stdout:
                code = _tell(_from_os(error), as_json=False)
    return code


def run(arguments: list[str], as_json: bool, debug: bool) -> int:
    """Run one command; the only place that catches everything. Returns the exit code."""
    try:
        result = build().main(args=arguments, prog_name="kaos", standalone_mode=False)
    except KaosError as error:
        return _report(error, as_json, debug)
    except FormatError as error:
        return _report(KaosError.of(error), as_json, debug)
    except ClickException as error:
        return _report_usage(error, arguments, as_json, debug)
    except (typer.Abort, KeyboardInterrupt):
        result = INTERRUPTED
    except BrokenPipeError:
        abandon(sys.stdout)
        return OK
    except OSError as error:
        return _report(_from_os(error), as_json, debug)
    except Exception as error:
        problem = KaosError(
            "internal",
            f"kaos itself failed: {type(error).__name__}: {error}",
            hint="run the command again with --debug and report what it prints",
        )
        return _report(problem, as_json, debug)
    if result == INTERRUPTED:
        # What Typer makes of Ctrl-C in silence, wherever no command had more to say.
        return _report(KaosError("interrupted", "interrupted"), as_json, debug)
    return result if isinstance(result, int) else OK


def _report(error: KaosError, as_json: bool, debug: bool) -> int:
    if debug:
        import traceback

        with suppress(OSError):
            traceback.print_exc()
    return _tell(error, as_json)


def _tell(error: KaosError, as_json: bool) -> int:
    """Write the error to stderr, if anybody reads that; its exit code."""
    if as_json:
        lines = [json.dumps(error.as_json(), ensure_ascii=False, default=str)]
    else:
        # After the ^C that the terminal shows.
        lines = [""] if error.code == "interrupted" and sys.stderr.isatty() else []
        lines.append(f"kaos: {error.message}")
        if candidates := error.fields.get("candidates"):
            lines.append("  candidates: " + ", ".join(map(str, candidates)))
        lines += [f"  → {line}" for line in error.hint.splitlines()]
    with suppress(OSError):
        print("\n".join(lines), file=sys.stderr)
    return error.exit_code


def _report_usage(error: Any, arguments: list[str], as_json: bool, debug: bool) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return USAGE
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else _path(arguments)
    return _report(KaosError("usage", error.format_message(), hint=f"{path} --help"), as_json, debug)


def _path(arguments: list[str]) -> str:
    """The command that was meant, for errors of click that do not say."""
    group, *below = [*arguments, ""]
    if group not in GROUPS:
        return "kaos"
    known = below and below[0] in getattr(load(group), "commands", {})
    return f"kaos {group} {below[0]}" if known else f"kaos {group}"


def _from_os(error: OSError) -> KaosError:
    import errno

    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return KaosError(
            "disk_full", f"no space left on the disk{where}", hint="free some space and try again"
        )
    return KaosError("io", f"{error.strerror or error}{where}", hint="check the path and its permissions")


if __name__ == "__main__":
    main()

__all__ = ["FAILED", "INTERRUPTED", "build", "main", "run"]
