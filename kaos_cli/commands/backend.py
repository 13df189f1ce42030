"""``kaos backend serve``: the backend of this machine for others, in the foreground."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from kaos_cli.contexts import LOCAL
from kaos_cli.errors import KaosError
from kaos_cli.session import Session, command

app = typer.Typer(no_args_is_help=True, add_completion=False)


def _option(name: str, variable: str, about: str, **more: Any) -> Any:
    return typer.Option(name, envvar=f"KAOS_SERVE_{variable}", show_envvar=True, help=about, **more)


@app.callback()
def group() -> None:
    """Let others use this machine's backend: serve, in the foreground."""


@app.command()
@command
def serve(
    session: Session,
    host: Annotated[
        str, _option("--host", "HOST", "Where to listen; 0.0.0.0 is all IPv4 addresses.", metavar="HOST")
    ] = "127.0.0.1",
    port: Annotated[
        int, _option("--port", "PORT", "The port there; 0 is any.", min=0, max=65535, metavar="PORT")
    ] = 8443,
    tls_cert: Annotated[
        Path | None,
        _option("--tls-cert", "TLS_CERT", "The certificate with its chain, in PEM.", metavar="FILE"),
    ] = None,
    tls_key: Annotated[
        Path | None,
        _option("--tls-key", "TLS_KEY", "Its key, in PEM, if that is in another file.", metavar="FILE"),
    ] = None,
    insecure_http: Annotated[
        bool,
        _option("--insecure-http", "INSECURE_HTTP", "Without TLS: for behind a proxy that has it."),
    ] = False,
    home: Annotated[
        Path | None,
        typer.Option("--home", metavar="FOLDER", help="In place of KAOS_HOME."),
    ] = None,
) -> None:
    """Serve others, who come with tokens of `kaos token create`, until Ctrl-C; the log is on stderr.

    A new certificate is read when its file changes, and at SIGHUP.
    """
    if home is not None:
        session.home = replace(session.home, path=home.expanduser().absolute())
    session.home = replace(session.home, chosen=LOCAL)
    session.home.token()
    _make_way(session)
    _become(
        session,
        {
            "KAOS_HOME": str(session.home.path),
            "KAOS_SERVE_HOST": host,
            "KAOS_SERVE_PORT": str(port),
            "KAOS_SERVE_TLS_CERT": _absolute(tls_cert),
            "KAOS_SERVE_TLS_KEY": _absolute(tls_key),
            "KAOS_SERVE_INSECURE_HTTP": "1" if insecure_http else "",
        },
    )


def _make_way(session: Session) -> None:
    """End the backend that a command has started by itself, which leaves all that runs as it is."""
    from kaos_cli.local import stop_backend
    from kaos_formats.home import is_locked, locked, read_running

    home = session.home
    with locked(home.path / "up.lock"):
        if not is_locked(home.lock("backend")):
            return
        running = read_running(home, "backend")
        if running is not None and running.serves:
            raise KaosError(
                "exists",
                f"a backend of {home.path} serves already, at {running.serves} (pid {running.pid})",
                hint="end that one first, or name another folder: --home",
            )
        stop_backend(home)
    session.terminal.say("the backend that ran for this user alone has made way; jobs go on")


def _become(session: Session, settings: dict[str, str]) -> NoReturn:
    """Go on as the backend, so that signals and the exit code are its own."""
    sys.stdout.flush()
    sys.stderr.flush()
    # -P: a stray json.py in the working directory must not become part of the backend.
    os.execve(  # noqa: S606
        sys.executable,
        [sys.executable, "-P", "-m", "kaos_backend", "serve"],
        {**session.env, **settings},
    )


def _absolute(path: Path | None) -> str:
    return "" if path is None else str(path.expanduser().absolute())
