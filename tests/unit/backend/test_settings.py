from __future__ import annotations

import re
from pathlib import Path

import pytest

from kaos_backend.settings import Limits, SettingsError, from_environment
from kaos_backend.tls import Certificate


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


def test_others_reach_only_what_is_served() -> None:
    assert not from_environment({"KAOS_SERVE_HOST": "0.0.0.0"}).shared
    served = from_environment({}, serve=True)
    assert served.shared
    assert served.served is not None
    assert (served.served.host, served.served.port) == ("127.0.0.1", 8443)
    assert served.fetching["KAOS_FETCH_PRIVATE"] == "0"
    behind = {"KAOS_SERVE_HOST": "0.0.0.0", "KAOS_SERVE_INSECURE_HTTP": "1", "KAOS_FETCH_PRIVATE": "1"}
    assert from_environment(behind, serve=True).fetching["KAOS_FETCH_PRIVATE"] == "1"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"HOST": "0.0.0.0"}, "others could read tokens"),
        ({"HOST": "0.0.0.0", "INSECURE_HTTP": "0"}, "others could read tokens"),
        ({"TLS_KEY": "key.pem"}, "no certificate"),
        ({"HOST": "a..b"}, "no address of this machine"),
        ({"PORT": "http"}, "is no port"),
    ],
)
def test_what_cannot_be_served(given: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        from_environment({f"KAOS_SERVE_{name}": value for name, value in given.items()}, serve=True)


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    for name in ("cert.pem", "missing.pem"):
        with pytest.raises(SettingsError, match="cannot be used"):
            Certificate(tmp_path / name, tmp_path / name)
