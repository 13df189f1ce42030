"""docs/cli.md from the commands themselves: ``python -m kaos_cli.reference > docs/cli.md``."""

from __future__ import annotations

from typing import Any

from kaos_cli import errors, main

INTRO = """# The command line

Made from the commands by `make docs`; a test fails when it is out of date.

- **Streams.** stdout carries the answer; progress, hints and warnings go to stderr. Without a terminal there
  is no colour and no moving bar; `NO_COLOR`, `TERM=dumb` and `FORCE_COLOR` are honoured, tables fit
  `COLUMNS` (80 without a terminal).
- **`--json`** is there on every command: one JSON value on stdout (`train logs`: one per line) and nothing
  else, an error as `{"version", "error": {"code", "message", "hint", "fields"}}` on stderr. Each of these is
  an object whose `version` (1) counts up when a field changes its meaning or goes; new fields may come at any
  time. Times are RFC 3339, sizes bytes, durations seconds.
- **JOB** is an id, the start of one, a row number of the last listing that was shown (digits alone, at most
  five; `-i N` too), or `last`, the default.
- **`-w` / `KAOS_WORKSPACE`** name the workspace; else it is the one of `kaos workspace set`, else `default`.
- **The backend** is started when a command needs it, and keeps its state in `KAOS_HOME` (default `~/.kaos`).
  `KAOS_PORT` fixes its port.
- **A backend elsewhere** is a context: `kaos context add NAME URL`, and `kaos context use NAME` or, for one
  command, `--context` / `KAOS_CONTEXT`; or `KAOS_ENDPOINT` with `KAOS_TOKEN` (and `KAOS_CA_CERT`), which goes
  before the context in use. Nothing is started on this machine for it. `http://` beyond this machine needs
  `--insecure` (`KAOS_INSECURE=1`). Contexts are in `config.json` of `KAOS_HOME`, their tokens in
  `credentials.json`, both for the user's eyes only.
- **Ctrl-C** and a limit of waiting (`deploy --wait-timeout`, `wait --timeout`, `logs -f --timeout`) detach:
  they say how to come back and end nothing. Ctrl-C while a bundle is being sent deploys nothing and leaves
  nothing.
- **`kaos down`** ends commands that wait for a job, in whatever terminal: they start nothing again. Servers
  that crash are started again by who waits, and the job goes on.
- **A reader that goes away** (`| head`, `>&-`) ends no job and changes no exit code.
- **Completion** for the shell in use: `kaos --install-completion`, or `--show-completion` to see it first.
"""

CODES = """## Exit codes

Fixed: a script may lean on the number, and on the `code` of an error under `--json`.

| exit code | meaning | `code` of the error |
|---|---|---|
"""


def render() -> str:
    """The whole page."""
    root = main.build()
    parts = [INTRO, "## Commands\n"]
    for name in main.GROUPS:
        parts += _command(main.load(name), f"kaos {name}")
    parts += ["## Options of `kaos` itself\n", _options(root), ""]
    return "\n".join(parts) + "\n" + CODES + "".join(map(_exit_code, errors.MEANINGS))


def _exit_code(number: int) -> str:
    codes = ", ".join(f"`{code}`" for code, exits in sorted(errors.EXIT_CODES.items()) if exits == number)
    return f"| {number} | {errors.MEANINGS[number]} | {codes} |\n"


def _command(command: Any, path: str) -> list[str]:
    if subcommands := getattr(command, "commands", None):
        parts = [f"### {path}\n", f"{command.help}\n"]
        for name, subcommand in subcommands.items():
            parts += _command(subcommand, f"{path} {name}")
        return parts
    arguments = [p.metavar or p.name.upper() for p in command.params if p.param_type_name == "argument"]
    arguments = [a if a.startswith("[") or a == "NAME" else f"[{a}]" for a in arguments]
    usage = " ".join([path, *arguments, "[OPTIONS]"])
    return [f"#### `{usage}`\n", f"{command.help}\n", _options(command), ""]


def _options(command: Any) -> str:
    rows = ["| option | meaning |", "|---|---|"]
    for parameter in command.params:
        help_text = (parameter.help or "").replace("|", "\\|")
        if parameter.param_type_name == "argument":
            rows.append(f"| `{parameter.metavar or parameter.name.upper()}` | {help_text} |")
            continue
        if parameter.name.endswith("_completion"):
            continue
        names = ", ".join(f"`{name}`" for name in sorted(parameter.opts, key=len))
        value = f" `{parameter.metavar}`" if parameter.metavar else ""
        variable = f" (environment: `{parameter.envvar}`)" if parameter.envvar else ""
        rows.append(
            f"| {names}{value} | {help_text}{variable} |".replace("METRIC[:asc|desc]", "METRIC[:asc\\|desc]")
        )
    return "\n".join(rows)


if __name__ == "__main__":
    print(render(), end="")
