"""Options of the whole test suite: pytest reads those of this file however deep the tests asked for lie."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# Also where a Docker engine answers: what needs that one says so.
os.environ["KAOS_RUNTIME"] = "process"
# What tests start is as users have it: its stdout has a buffer, and no server compiles kaos anew.
for name in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"):
    os.environ.pop(name, None)
# What a shell starts in the background ignores Ctrl-C, and so would the programs that tests press it in.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Both measure how busy the machine is, not what is tested.
settings.register_profile(
    "kaos", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("kaos")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("parity", "the server that tests/parity speaks to")
    group.addoption("--pachd", metavar="HOST:PORT", help="a running pachd (default: an embedded one)")
    group.addoption("--token", metavar="TOKEN", default="", help="auth token for --pachd")
    group.addoption(
        "--image",
        default="ubuntu:20.04",
        help="image with a POSIX shell that pipelines of the tests run (default: %(default)s)",
    )


def pytest_configure() -> None:
    """Let pytest remove the folders of old runs in our way: its own recurses, and some tests dig deep."""
    from _pytest import pathlib

    from kaos_formats.folders import remove_tree

    pathlib.rm_rf = remove_tree  # type: ignore[assignment]
