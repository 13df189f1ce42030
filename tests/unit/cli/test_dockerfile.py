"""The Dockerfile that a folder without one gets: what it installs, on which Python, as part of the bundle."""

from __future__ import annotations

import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
import zstandard
from kaos_pipelines.build.dockerfile import parse
from kaos_pipelines.build.plan import compile_plan

from kaos_cli import bundle
from kaos_cli.dockerfile import Generated, generate
from kaos_cli.errors import KaosError
from kaos_cli.pack import pack
from kaos_formats.conda import read_environment
from kaos_formats.errors import InvalidBundle

HERE = f"3.{sys.version_info.minor}"
PROJECT = '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.9"\n'
CONDA = """
channels: [conda-forge]
dependencies:
  - python>=3.9
  - numpy=1.26
  - conda-forge::scipy==1.11.4
  - pandas 2.1.*
  - pytorch=2.3.0=py3.11_cuda12.1
  - pytorch-cuda=12.1
  - pip
  - pip: ["tiny<2", "--extra-index-url https://x/simple"]
"""


def made(files: dict[str, str]) -> Generated:
    found = generate({"train": "", **files}.keys(), files.__getitem__)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("files", "lines"),
    [
        ({"requirements.txt": "tiny\n"}, ["COPY requirements.txt ./", "RUN pip install", "COPY . ."]),
        ({"requirements.txt": "-r base.txt\n", "base.txt": ""}, ["COPY . .", "RUN pip install"]),
        (
            {"uv.lock": 'source = { virtual = "." }\n', "pyproject.toml": PROJECT, "requirements.txt": ""},
            [
                "ENV UV_PROJECT_ENVIRONMENT=/usr/local",
                "RUN pip install --no-cache-dir uv",
                "COPY pyproject.toml uv.lock ./",
                "RUN uv sync --frozen --no-dev --inexact --no-install-project",
                "COPY . .",
            ],
        ),
        (
            {"uv.lock": 'source = { directory = "libs/a" }\n', "pyproject.toml": PROJECT},
            ["ENV", "RUN pip", "COPY . .", "RUN uv sync --frozen --no-dev --inexact"],
        ),
        (
            {"poetry.lock": "", "pyproject.toml": PROJECT, "src/x/__init__.py": ""},
            [
                "ENV POETRY_VIRTUALENVS_CREATE=false",
                "RUN pip install --no-cache-dir poetry",
                "COPY pyproject.toml poetry.lock ./",
                "RUN poetry install --no-interaction --no-root --only main",
                "COPY . .",
                "ENV PYTHONPATH=/app/src",
            ],
        ),
        (
            {"pylock.toml": ""},
            ["RUN pip", "COPY pylock.toml ./", "RUN uv pip install --system -r", "COPY . ."],
        ),
        (
            {"environment.yml": CONDA},
            [
                "RUN pip install --no-cache-dir 'numpy==1.26.*' scipy==1.11.4 'pandas==2.1.*' torch==2.3.0 "
                "'tiny<2' --extra-index-url https://x/simple",
                "COPY . .",
            ],
        ),
    ],
)
def test_what_is_installed_comes_before_the_code(files: dict[str, str], lines: list[str]) -> None:
    found = made(files)
    body = found.text.splitlines()
    assert body[1:3] == [f"FROM python:{HERE}-slim", "WORKDIR /app"]
    assert len(body) == len(lines) + 3
    for line, start in zip(body[3:], lines, strict=True):
        assert line.startswith(start)
    assert compile_plan(parse(found.text), shell=True).python == HERE


@pytest.mark.parametrize(
    ("files", "python"),
    [
        ({"requirements.txt": ""}, HERE),
        ({"requirements.txt": "", ".python-version": "3.10.4\n"}, "3.10"),
        ({"uv.lock": "", "pyproject.toml": PROJECT.replace(">=3.9", "==3.9.*")}, "3.9"),
        ({"uv.lock": "", "pyproject.toml": PROJECT.replace(">=3.9", ">=3.10,<3.11")}, "3.10"),
        ({"poetry.lock": "", "pyproject.toml": '[tool.poetry.dependencies]\npython = "~3.9"\n'}, "3.9"),
        ({"poetry.lock": "", "pyproject.toml": '[tool.poetry.dependencies]\npython = "^3.8"\n'}, HERE),
        ({"environment.yml": "dependencies: [python=3.8]\n"}, "3.8"),
    ],
)
def test_the_python_is_what_the_project_asks_for(files: dict[str, str], python: str) -> None:
    found = made(files)
    assert found.python == python
    assert f"FROM python:{python}-slim\n" in found.text


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"pyproject.toml": PROJECT}, "neither a lock file nor a Dockerfile"),
        ({"uv.lock": ""}, "belongs to a pyproject.toml"),
        ({"uv.lock": "", "pyproject.toml": "x ="}, "not TOML"),
        ({"uv.lock": "", "pyproject.toml": PROJECT.replace(">=3.9", "<3")}, "no such image"),
        ({"uv.lock": "", "pyproject.toml": PROJECT.replace(">=3.9", "new")}, "no version specifier"),
        ({"environment.yml": "a: ["}, "not YAML"),
        ({"environment.yml": "[" * 5000}, "not YAML"),
        ({"environment.yml": "dependencies: 3"}, "no list of dependencies"),
        ({"environment.yml": "dependencies: [[]]"}, "is no package"),
        ({"environment.yml": "dependencies: [gcc, ffmpeg=6, numpy]"}, "gcc, ffmpeg: no Python package"),
        ({"environment.yml": "dependencies: ['numpy=1.2|1.3']"}, "no counterpart"),
        ({"environment.yml": "dependencies: [{npm: [x]}]"}, "one list under pip"),
    ],
)
def test_what_makes_no_sense_is_refused(files: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidBundle, match=reason):
        made(files)


@pytest.mark.parametrize(
    ("conda", "pip"),
    [
        ("x", "x"),
        ("x=1", "x==1.*"),
        ("x=1.2.*", "x==1.2.*"),
        ("x==1.2", "x==1.2"),
        ("x =1.2", "x==1.2.*"),
        ("x 1.2 py_0", "x==1.2"),
        ("X>=1.2, <2", "x>=1.2,<2"),
        ("x[version='*']", "x"),
    ],
)
def test_versions_of_conda_in_words_of_pip(conda: str, pip: str) -> None:
    assert read_environment(f'dependencies: ["{conda}"]').requirements == (pip,)


def test_it_is_a_file_of_the_bundle(tmp_path: Path) -> None:
    folder, cache = tmp_path / "code", tmp_path / "cache"
    folder.mkdir()
    train = folder / "train"
    train.write_text("#!/usr/bin/env python3\n")
    train.chmod(0o755)
    (folder / "requirements.txt").write_text("tiny\n")
    found = bundle.read(folder, "source", cache)
    assert found.generated is not None
    assert found.id == bundle.read(folder, "source", cache).id
    packed = zstandard.ZstdDecompressor().decompressobj().decompress(b"".join(pack(found, found.entries)))
    with tarfile.open(fileobj=BytesIO(packed)) as tar:
        file = tar.extractfile("Dockerfile")
        assert file is not None
        assert file.read().decode() == found.generated.text
    assert not (folder / "Dockerfile").exists()
    # With the same Dockerfile written by hand it is the same bundle.
    (folder / "Dockerfile").write_text(found.generated.text)
    by_hand = bundle.read(folder, "source", cache)
    assert (by_hand.id, by_hand.generated) == (found.id, None)
    # Without anything that says what is needed, nothing is made up.
    (folder / "Dockerfile").unlink()
    (folder / "requirements.txt").unlink()
    with pytest.raises(KaosError, match="there is no Dockerfile"):
        bundle.read(folder, "source", cache)
