"""The image and the compose file, brought up for real; not in the suite: a minute, and 100 MB of wheels.

    pip wheel --wheel-dir WHEELS . hatchling pip
    KAOS_TEST_WHEELS=WHEELS python -m pytest tests/e2e/test_compose.py

Nothing is pulled: the base images are made of this machine's own files, and `docker-compose` is Debian's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.support.bundles import write_data, write_grid, write_source
from tests.support.docker_engine import base_image, engine_or_skip
from tests.support.home import ROOT, Home
from tests.support.shared import Certificates
from tests.support.waiting import eventually

WHEELS = os.environ.get("KAOS_TEST_WHEELS")
pytestmark = [
    pytest.mark.skipif(not WHEELS, reason="KAOS_TEST_WHEELS names no folder of wheels"),
    pytest.mark.skipif(shutil.which("docker-compose") is None, reason="no docker-compose"),
    pytest.mark.timeout(600),
]
FOLDER = ROOT / "infrastructure" / "docker"
PYTHON, REGISTRY, IMAGE = "kaos-tests/compose-python", "kaos-tests/compose-registry", "kaos-tests/compose"


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        list(map(str, command)), env=os.environ | (env or {}), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(folder: Path, name: str, lines: str) -> None:
    (folder / "Dockerfile").write_text(lines)
    run("docker", "build", "-q", "-t", name, folder)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[docker.APIClient]:
    api = engine_or_skip()
    assert WHEELS is not None
    # What the Dockerfile expects of its base image: a Python with pip, and packages to be had.
    folder = tmp_path_factory.mktemp("python")
    shutil.copytree(WHEELS, folder / "wheels")
    with zipfile.ZipFile(next(Path(WHEELS).glob("pip-*.whl"))) as pip:
        pip.extractall(folder / "packages")
    libraries = [
        path
        for name in (
            "libstdc++.so.6",
            "libgcc_s.so.1",
            "libpthread.so.0",
            "libdl.so.2",
            "librt.so.1",
            "libm.so.6",
        )
        for path in Path("/usr/lib").rglob(name)
    ]
    (folder / "lib").mkdir()
    for path in libraries:
        shutil.copy(path, folder / "lib" / path.name)
    packages, scripts = (
        sysconfig.get_path("purelib", vars=_base()),
        sysconfig.get_path("scripts", vars=_base()),
    )
    build(
        folder,
        PYTHON,
        f"FROM {base_image(api)}\nCOPY wheels /wheelhouse\nCOPY packages {packages}\nCOPY lib /usr/lib/\n"
        f"ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheelhouse PATH={scripts}:/usr/local/bin:/usr/bin:/bin\n",
    )
    run(
        "docker", "build", "-q", "-t", IMAGE, "-f", FOLDER / "Dockerfile",
        "--build-arg", f"PYTHON={PYTHON}", "--build-arg", "PACKAGES=", ROOT,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("registry")
    program = shutil.which("docker-registry")
    assert program is not None
    shutil.copy(program, folder / "registry")
    (folder / "config.yml").write_text(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: /var/lib/registry\nhttp:\n  addr: :5000\n"
    )
    build(
        folder, REGISTRY,
        f"FROM {base_image(api)}\nCOPY registry config.yml /opt/\n"
        'VOLUME /var/lib/registry\nCMD ["/opt/registry", "serve", "/opt/config.yml"]\n',
    )  # fmt: skip
    yield api
    api.close()


def _base() -> dict[str, str]:
    return {"base": sys.base_prefix, "platbase": sys.base_prefix, "installed_base": sys.base_prefix}


def test_it_is_brought_up_used_from_elsewhere_and_survives_kills(
    images: docker.APIClient, tmp_path: Path
) -> None:
    # Workers mount folders of the home, so it has to be where the Docker engine sees it.
    place = Path(tempfile.mkdtemp(prefix="kc"))
    tls = Certificates(place / "tls")
    port, registry_port = "18743", "18750"
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    env = {
        "KAOS_IMAGE": IMAGE,
        "KAOS_REGISTRY_IMAGE": REGISTRY,
        "KAOS_DATA": str(place / "home"),
        "KAOS_TLS": str(place / "tls"),
        "KAOS_PORT": port,
        "KAOS_REGISTRY_PORT": registry_port,
        "DOCKER_SOCKET": host.removeprefix("unix://"),
    }

    def compose(*args: str) -> str:
        return run("docker-compose", "-p", "kaostest", "-f", FOLDER / "compose.yaml", *args, env=env)

    def healthy() -> bool:
        return ann.run("workspace", "list", "-q", check=False, timeout_s=200).returncode == 0

    ann = Home(tmp_path / "ann")
    try:
        compose("up", "-d")
        eventually(lambda: "serving others" in compose("logs", "backend"), "it serves", 60)
        token = compose("exec", "-T", "backend", "kaos", "token", "create", "ann", "-q").strip()
        url = f"https://localhost:{port}"
        ann.run("init", "-e", url, "--name", "box", "--token", token, "--ca-cert", tls.ca)
        src, data = write_source(tmp_path / "src"), write_data(tmp_path / "data")
        (src / "Dockerfile").write_text(f"FROM {base_image(images)}\nWORKDIR /app\nCOPY . .\n")
        grid = write_grid(tmp_path / "grid.json", {"x": [1, 2]})
        first = ann.json("train", "deploy", "-s", src, "-d", data, "-h", grid, "--wait")
        assert first["status"] == "started"
        info = ann.json("train", "info")
        assert [t["state"] for t in info["trials"]] == ["success"] * 2
        assert info["trials"][0]["image"].startswith(f"127.0.0.1:{registry_port}/kaos/")
        assert info["inputs"]["source"]["author"] == "ann"
        for number, service in enumerate(("backend", "registry")):
            container = compose("ps", "-q", service).strip()
            write_grid(grid, {"x": [1, 2, 3 + number]})
            run("docker", "kill", "--signal", "KILL", container)
            # Compose restarts none that was killed by hand; a crash is restarted by the Docker engine.
            compose("up", "-d")
            eventually(healthy, f"{service} is there again", 90)
            again = ann.json("train", "deploy", "-h", grid, "--wait")
            assert again["stages"] == ["train"]
            assert len(ann.json("train", "info")["trials"]) == 3
        assert len(ann.json("train", "list")["jobs"]) == 3
        compose("stop")
        assert "Traceback" not in compose("logs", "backend")
    finally:
        subprocess.run(
            ["docker-compose", "-p", "kaostest", "-f", str(FOLDER / "compose.yaml"), "down", "-v", "-t", "1"],
            env=os.environ | env,
            capture_output=True,
            check=False,
        )
        shutil.rmtree(place, ignore_errors=True)
