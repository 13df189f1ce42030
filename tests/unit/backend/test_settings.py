from __future__ import annotations

from pathlib import Path

import pytest

from kaos_backend.settings import SettingsError, from_environment


def test_settings_come_from_the_environment() -> None:
    chosen = from_environment({"KAOS_HOME": "/x", "KAOS_PORT": "80", "KAOS_ENGINE_ADDRESS": "grpc://h:1"})
    assert (chosen.home.path, chosen.port, chosen.engine_address) == (Path("/x"), 80, "grpc://h:1")
    plain = from_environment({"KAOS_PORT": ""})
    assert (plain.home.path, plain.port, plain.engine_port) == (Path("~/.kaos").expanduser(), None, None)


@pytest.mark.parametrize("port", ["http", "-1", "65536", "1.5"])
def test_ports_that_are_none(port: str) -> None:
    with pytest.raises(SettingsError, match="KAOS_ENGINE_PORT"):
        from_environment({"KAOS_ENGINE_PORT": port})
