"""Options that commands share, and how what is typed is read."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NamedTuple

import typer

from kaos_cli.config import Home
from kaos_cli.refs import job_ref
from kaos_cli.text import parse_duration, parse_time


class JobNamed(NamedTuple):
    """A job as it was named, in one of three ways."""

    job: Annotated[
        str | None,
        typer.Argument(
            metavar="[JOB]",
            help="An id, the start of one, a row number of the last listing, or 'last' (the default).",
            show_default=False,
        ),
    ] = None
    job_option: Annotated[
        str | None, typer.Option("--job", "-j", metavar="JOB", help="The same as an option.")
    ] = None
    row: Annotated[
        int | None,
        typer.Option("--row", "-i", metavar="N", help="The job in this row of the last listing."),
    ] = None

    def ref(self, home: Home, ws: str) -> str:
        """See ``job_ref``."""
        return job_ref(home, ws, *self)


TrialOption = Annotated[
    int | None, typer.Option("--trial", "-t", min=0, metavar="N", help="Only this trial's.")
]
WaitOption = Annotated[
    bool, typer.Option("--wait", help="Wait for the end; the exit code is 0 only if every trial succeeded.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite files of another content.")]


def duration(given: str) -> float:
    try:
        return parse_duration(given)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def moment(given: str) -> datetime:
    """A moment (UTC unless it says otherwise), or the one so long ago."""
    if (found := parse_time(given)) is not None:
        return found
    try:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(given))
    except ValueError:
        raise typer.BadParameter(
            f"{given!r} is no time: for example 10m (ago) or 2030-01-31T12:00:00Z"
        ) from None


def pattern(given: str) -> re.Pattern[str]:
    try:
        return re.compile(given)
    except (re.error, RecursionError, OverflowError) as error:
        raise typer.BadParameter(f"{given!r} is no regular expression: {error}") from error


def limit(given: str) -> float:
    """Seconds that a trial may take; 0 for ``none`` (and ``0``)."""
    return 0.0 if given in ("none", "0") else duration(given)


def _waiting(option: str) -> Any:
    return typer.Option(
        option,
        metavar="TIME",
        parser=duration,
        help="Wait no longer than this (90s, 10m, 1h30m); the exit code is 124 then, and the job goes on.",
    )


TimeoutOption = Annotated[float | None, _waiting("--timeout")]
WaitTimeoutOption = Annotated[float | None, _waiting("--wait-timeout")]
