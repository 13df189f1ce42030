"""Beside pip: what uv, Poetry and conda are asked for, by real uv where it is carried out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kaos_pipelines.build.commands import Note, command
from kaos_pipelines.build.errors import BuildError, Refused
from kaos_pipelines.build.installers import conda_run, parse
from kaos_pipelines.build.words import Word

from kaos_backend.engine.workers.process import images

from .conftest import HERE, bundle, config, is_ready, make
from .test_shell import BWRAP, START, build

UV = Path(sys.executable).with_name("uv")
PROJECT = """[project]
name = "demo"
version = "0.1"
requires-python = ">=3.11"
dependencies = ["tiny<2"]
[tool.uv]
no-index = true
find-links = ["wheels"]
"""
PACKAGED = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
BACKEND = """
import os, zipfile
def build_editable(folder, settings=None, metadata=None):
    info = "demo-0.1.dist-info/"
    with zipfile.ZipFile(os.path.join(folder, "demo-0.1-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("demo.pth", os.getcwd() + "/src")
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: demo\\nVersion: 0.1\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    return "demo-0.1-py3-none-any.whl"
build_wheel = build_editable
"""
CONDA = f"dependencies: [python={HERE}, other, pip, {{pip: [tiny==1.0]}}]\n"


def project(tmp_path: Path, wheels: Path, dockerfile: str, files: dict[str, str], name: str = "s1") -> Path:
    """A bundle with a lock file that uv made, and the wheels that this names."""
    files = {"pyproject.toml": PROJECT, **files}
    source = bundle(tmp_path, dockerfile, files, name)
    shutil.copytree(wheels, source / "wheels")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    subprocess.run([UV, "lock", "--quiet", "--offline"], cwd=source, env=env, check=True)
    return source


def imports(engine: Path, image: str, code: str) -> str:
    venv = images.ImageStore(engine).get(image).venv
    assert venv is not None
    done = subprocess.run([venv / "bin/python", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("shell", [True, False])
def test_uv_installs_what_the_lock_file_says(
    tmp_path: Path,
    wheels: Path,
    shell: bool,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if shell and BWRAP is None:
        pytest.skip("bwrap is not installed")
    monkeypatch.setenv("PATH", f"{UV.parent}:{os.environ['PATH']}")
    engine = tmp_path / "engine"
    bound = " ".join(
        f"--mount=type=bind,source={name},target={name}" for name in ("uv.lock", "pyproject.toml", "wheels")
    )
    copied = "COPY pyproject.toml uv.lock ./\nCOPY wheels wheels\nRUN"
    dockerfile = (
        f"FROM python:{HERE}-slim\nCOPY --from=ghcr.io/astral-sh/uv:0.9 /uv /bin/\nWORKDIR /app\n"
        f"{f'RUN --mount=type=cache,target=/root/.cache/uv {bound}' if shell else copied} "
        f"uv sync --frozen --no-install-project\n{'RUN ! ls uv.lock' if shell else ''}\nCOPY . .\n"
    )
    for name in ("s1", "s2"):
        source = project(tmp_path, wheels, dockerfile, {"code.py": name}, name)
        if shell:
            build(source, engine, f"kaos/w:{name}")
        else:
            make(source, f"kaos/w:{name}", engine)
        assert ("using the cached environment" in capfd.readouterr().out) == (name == "s2")
    assert imports(engine, "kaos/w:s2", "import tiny; print(tiny.VALUE)") == "one"


@pytest.mark.usefixtures("wheels")
@pytest.mark.skipif(BWRAP is None, reason="bwrap is not installed")
def test_an_editable_project_is_installed_once(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", f"{UV.parent}:{os.environ['PATH']}")
    engine = tmp_path / "engine"
    run = "RUN uv sync --frozen\nRUN uv run python -c 'import demo, tiny' && python -m demo > said\n"
    for word in ("first", "second"):
        files = {
            "backend.py": BACKEND,
            "src/demo/__init__.py": "",
            "src/demo/__main__.py": f"print({word!r})",
        }
        files["pyproject.toml"] = PROJECT + PACKAGED
        root = build(project(tmp_path, wheels, START + run, files, word), engine)
        assert (root / "app/said").read_text() == f"{word}\n"
        assert ("using the cached environment" in capfd.readouterr().out) == (word == "second")


@pytest.mark.usefixtures("wheels")
@pytest.mark.parametrize("shell", [True, False])
def test_pip_stands_in_for_conda(tmp_path: Path, shell: bool) -> None:
    if shell and BWRAP is None:
        pytest.skip("bwrap is not installed")
    engine = tmp_path / "engine"
    dockerfile = (
        "FROM continuumio/miniconda3\nWORKDIR /app\nCOPY . .\n"
        "RUN conda env create -f environment.yml && conda clean -afy\nRUN conda run -n x touch made\n"
    )
    source = bundle(tmp_path, dockerfile, {"environment.yml": CONDA})
    if shell:
        build(source, engine)
    else:
        make(source, "kaos/w:1", engine)
    root = images.ImageStore(engine).get("kaos/w:1").root
    assert root is not None
    assert (root / "app/made").exists()
    assert config(engine, "kaos/w:1")["python"].startswith(HERE)
    assert imports(engine, "kaos/w:1", "import tiny, other; print(tiny.VALUE)") == "one"


def test_what_conda_alone_can_install_is_refused(tmp_path: Path) -> None:
    dockerfile = f"FROM python:{HERE}\nCOPY . .\nRUN conda env create\n"
    source = bundle(tmp_path, dockerfile, {"environment.yml": "dependencies: [gcc, python=3.4]"})
    with pytest.raises(BuildError, match=r"Dockerfile:3: RUN conda env create: .*gcc: no Python package"):
        make(source, "kaos/w:1", tmp_path / "engine")
    (source / "environment.yml").write_text("dependencies: [python=3.4]")
    with pytest.raises(BuildError, match=rf"asks for Python ==3.4.\*, and this is {HERE}"):
        make(source, "kaos/w:1", tmp_path / "engine")
    assert not is_ready(tmp_path / "engine", "kaos/w:1")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("uv pip install --system -r r.txt --no-cache x", "uv pip install -r r.txt --no-cache x"),
        ("uv pip sync r.txt", "uv pip sync r.txt"),
        ("uv sync --frozen --extra cpu", "uv sync --frozen --extra cpu"),
        ("poetry -n install --only main", "poetry install --only main"),
        ("conda install -y -c conda-forge numpy=1.26 scipy", "pip install numpy=1.26\nscipy"),
        ("mamba env update --file e.yml", "pip install e.yml"),
        ("conda clean -afy", None),
        ("uv export", None),
        ("poetry config virtualenvs.create false", None),
    ],
)
def test_command_lines(line: str, text: str | None) -> None:
    tool, *words = line.split()
    found = parse(tool, words, "/app", {}, strict=False)
    assert (None if found is None else found.text) == text


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("uv sync", "add --no-install-project"),
        ("poetry install", "add --no-root"),
        ("uv run x", "sync and pip install"),
        ("poetry run x", "install is understood"),
        ("conda build x", "env create, install and run"),
        ("conda install -y", "names nothing"),
        ("uv pip install -e .", "install x without|without -e"),
    ],
)
def test_what_takes_a_sandbox_is_refused(line: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        command([Word(word) for word in line.split()], None, "/app", {})
    assert command([Word(word) for word in ("conda", "init")], None, "/", {}) == (Note("conda init"),)


def test_conda_run() -> None:
    assert conda_run(["run", "--no-capture-output", "-n", "x", "python", "-c", "y"]) == ["python", "-c", "y"]
    assert conda_run(["install", "x"]) is None
