"""What infrastructure/docker promises, as far as it can be read; tests/e2e/test_compose.py brings it up."""

from __future__ import annotations

import configparser
import io
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pathspec
import pytest
import yaml
from dockerfile_parse import DockerfileParser

from kaos_backend.settings import from_environment
from kaos_cli import main

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "infrastructure" / "docker"
UNIT = FOLDER / "kaos.service"


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())


def steps() -> list[Any]:
    return list(DockerfileParser(fileobj=io.BytesIO((FOLDER / "Dockerfile").read_bytes())).structure)


def test_the_image_has_all_of_the_package_and_nothing_that_is_ignored() -> None:
    copied = {
        word
        for step in steps()
        if step["instruction"] == "COPY" and "--from" not in step["value"]
        for word in step["value"].split()[:-1]
    }
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {package.partition("/")[0] for package in wheel["packages"]} | set(wheel["force-include"])
    assert needed | {"pyproject.toml"} <= copied
    ignored = pathspec.GitIgnoreSpec.from_lines((ROOT / ".dockerignore").read_text().splitlines())
    for name in copied:
        assert (ROOT / name).exists(), name
        assert not ignored.match_file(name), name
    assert ignored.match_file("scratch")


def test_the_image_serves_others(compose: Any) -> None:
    values = {step["instruction"]: step["value"] for step in steps()}
    command = " ".join([*yaml.safe_load(values["ENTRYPOINT"]), *yaml.safe_load(values["CMD"])])
    assert command == "kaos backend serve"
    set_in_it = " ".join(step["value"] for step in steps() if step["instruction"] == "ENV")
    env = dict(re.findall(r"(KAOS_\w+)=(\S+)", set_in_it))
    backend = compose["services"]["backend"]
    told = {name: _default(value) for name, value in (env | backend["environment"]).items()}
    served = from_environment(told, serve=True).served
    assert served is not None
    assert served.host == "0.0.0.0"
    assert f":{served.port}" in backend["ports"][0]
    assert values["EXPOSE"] == str(served.port)
    targets = [_default(volume).split(":")[1] for volume in backend["volumes"]]
    assert served.cert is not None
    assert str(served.cert.parent) in targets
    # Workers mount folders of the home: it is where the host has it.
    home = told["KAOS_HOME"]
    assert f"{home}:{home}" in map(_default, backend["volumes"])
    assert set(compose["services"]) == {"backend", "registry"}


def test_the_unit_starts_what_there_is() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(UNIT.read_text())
    _, *command = shlex.split(unit["Service"]["ExecStart"])
    assert command[0] in main.GROUPS
    told = dict(re.findall(r"^Environment=(\w+)=(\S+)", UNIT.read_text(), re.MULTILINE))
    assert from_environment(told, serve=True).shared


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text().replace("/opt/kaos/bin/kaos", "/bin/true").replace("User=kaos", "User=root")
    (tmp_path / "kaos.service").write_text(text)
    said = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "kaos.service"], capture_output=True, text=True, check=False
    )
    assert "kaos.service" not in said.stderr, said.stderr


def _default(value: str) -> str:
    """As compose has it where no variable is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))
