from __future__ import annotations

import re
from pathlib import Path

import pytest

from kaos_backend.settings import Limits, SettingsError, from_environment


def test_settings_come_from_the_environment() -> None:
    chosen = from_environment({"KAOS_HOME": "/x", "KAOS_PORT": "80", "KAOS_ENGINE_ADDRESS": "grpc://h:1"})
    assert (chosen.home.path, chosen.port, chosen.engine_address) == (Path("/x"), 80, "grpc://h:1")
    plain = from_environment({"KAOS_PORT": ""})
    assert (plain.home.path, plain.port, plain.engine_port) == (Path("~/.kaos").expanduser(), None, None)


@pytest.mark.parametrize("port", ["http", "-1", "65536", "1.5"])
def test_ports_that_are_none(port: str) -> None:
    with pytest.raises(SettingsError, match="KAOS_ENGINE_PORT"):
        from_environment({"KAOS_ENGINE_PORT": port})


def test_limits_can_be_set() -> None:
    limits = from_environment({"KAOS_LIMITS": "uploads=8, stall_s=0.5"}).limits
    assert (limits.uploads, limits.stall_s, limits.calls) == (8, 0.5, Limits().calls)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("upload=8", "no limit 'upload'"),
        ("uploads", "'' is no number for uploads"),
        ("uploads=1.5", "'1.5' is no number for uploads"),
        ("stall_s=nan", "stall_s must be above 0"),
        ("uploads=0", "uploads must be above 0"),
    ],
)
def test_limits_that_are_none(text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(says)):
        from_environment({"KAOS_LIMITS": text})
