"""Images for tests of runtimes, made without a build of kaos' own."""

from __future__ import annotations

import contextlib
import json
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import docker
from docker.errors import ImageNotFound

from kaos_formats.images import directory_name
from tests.support.docker_engine import add_files, base_image


class Images(Protocol):
    base: str
    """An image with a shell, the usual programs and Python."""
    python: str
    """What a Dockerfile can be built from."""
    workspace: str
    """Builds for this workspace are in nobody's way."""

    def make(self, files: Mapping[str, str], workdir: str, env: Mapping[str, str]) -> str:
        """The name of a new image: `base` with executable files at these paths."""
        ...

    def close(self) -> None:
        """Remove what was made."""
        ...


class FolderImages:
    """Images as the venv builder writes them; the machine's own programs are in each."""

    base = "ubuntu:20.04"
    python = f"python:{sys.version_info.major}.{sys.version_info.minor}"
    workspace = "ws"

    def __init__(self, engine_dir: Path) -> None:
        self._images = engine_dir / "images"

    def make(self, files: Mapping[str, str], workdir: str, env: Mapping[str, str]) -> str:
        name = "kaos/test:1"
        folder = self._images / directory_name(name)
        (folder / "root" / workdir.strip("/")).mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            file = folder / "root" / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o755)
        config = {"name": name, "workdir": workdir, "env": dict(env), "venv": None, "prefixes": []}
        (folder / "config.json").write_text(json.dumps(config))
        return name

    def close(self) -> None:
        return


class DockerImages:
    """Images of a Docker engine."""

    def __init__(self, api: docker.APIClient) -> None:
        self._api = api
        self._made: list[str] = []
        self.base = self.python = base_image(api)
        self.workspace = f"ws{uuid.uuid4().hex}"

    def make(self, files: Mapping[str, str], workdir: str, env: Mapping[str, str]) -> str:
        name = f"kaos/test-{uuid.uuid4().hex}:1"
        lines = [f"WORKDIR {workdir}", *(f"ENV {key}={value}" for key, value in env.items())]
        add_files(self._api, name, self.base, files, "\n".join(lines))
        self._made.append(name)
        return name

    def close(self) -> None:
        names = [name for image in self._api.images() for name in image["RepoTags"] or ()]
        for name in [*self._made, *(name for name in names if self.workspace in name)]:
            with contextlib.suppress(ImageNotFound):
                self._api.remove_image(name, force=True)
        self._api.close()
