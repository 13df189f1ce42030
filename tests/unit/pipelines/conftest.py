"""Sources to build, the wheels that they ask for, and what was made of them."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from kaos_pipelines.build import with_venv
from kaos_pipelines.build.bundle import load_bundle
from kaos_pipelines.build.log import BuildLog

from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.workers.process import images
from kaos_formats.images import directory_name
from kaos_formats.tree import TreeEntry, format_tree

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
TRAIN = "#!/usr/bin/env python3\nimport tiny, sys\nprint(tiny.VALUE, sys.prefix)\n"


def make(source: Path, image: str, store: Path) -> dict[str, Any]:
    return with_venv.build(load_bundle(source), image, store, BuildLog())


def _record_hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def wheel(folder: Path, name: str, version: str, value: str) -> None:
    """A minimal pure-Python wheel."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VALUE = {value!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_record_hash(text)},{len(text)}\n" for path, text in files.items())
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}.items():
            archive.writestr(path, text)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip's own configuration points at a folder of wheels, and nowhere else."""
    folder = tmp_path / "wheels"
    wheel(folder, "tiny", "1.0", "one")
    wheel(folder, "tiny", "2.0", "two")
    wheel(folder, "other", "1.0", "other")
    config = tmp_path / "pip.conf"
    config.write_text(f"[global]\nno-index = true\nfind-links = {folder}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    return folder


def bundle(
    tmp_path: Path, dockerfile: str, files: dict[str, str] | None = None, name: str = "source1"
) -> Path:
    source = tmp_path / "pfs" / "source" / name
    for path, text in {"Dockerfile": dockerfile, "train": TRAIN, **(files or {})}.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(text)
    source.with_name(f"{name}.tree").write_bytes(format_tree([TreeEntry("train", 1, "755", "0" * 64)]))
    return source


def config(engine: Path, image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (engine / "images" / directory_name(image) / "config.json").read_text()
    )
    return found


def is_ready(engine: Path, image: str) -> bool:
    """Whether the runtime finds the image whole."""
    try:
        return images.ImageStore(engine).get(image).root is not None
    except EngineError:
        return False
