"""Reads the image store that the venv builder writes (format: docs/builder.md).

images/<directory name>/config.json   what the Dockerfile said, and where the virtual environment is
images/<directory name>/root/…        the files it put into the image, at their image paths
venvs/<key>/                          virtual environments, shared by all images that need the same one
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kaos_backend.engine.errors import FailedPrecondition, NotFound

OWN_PREFIX = "kaos/"
VENV_READY = ".kaos-ready"


@dataclass(frozen=True, slots=True)
class Image:
    """What the process runtime needs of an image. `root` is None for images that bring no files of their
    own.
    """

    name: str
    root: Path | None
    workdir: str
    env: Mapping[str, str] = field(default_factory=dict)
    venv: Path | None = None
    prefixes: tuple[Path, ...] = ()  # installations of Python that the environment leans on


def directory_name(image: str) -> str:
    """Folder of an image below images/: readable, and distinct for distinct names."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", image).strip("-.")[:64]
    return f"{readable}-{hashlib.sha256(image.encode()).hexdigest()[:16]}"


class ImageStore:
    """The images below an engine directory. Read only: the builder renames complete folders in."""

    def __init__(self, engine_dir: Path) -> None:
        self.images = engine_dir / "images"
        self.venvs = engine_dir / "venvs"

    def get(self, name: str) -> Image:
        """The image called `name`.

        Names outside `kaos/` are images of registries, which a runtime without containers cannot pull: they
        stand for the host's own programs and files. Raises NotFound for a `kaos/` image that was not built,
        and FailedPrecondition for one whose environment is gone.
        """
        if not name.startswith(OWN_PREFIX):
            return Image(name=name, root=None, workdir="/")
        folder = self.images / directory_name(name)
        try:
            config = json.loads((folder / "config.json").read_text("utf-8"))
        except FileNotFoundError:
            raise NotFound(f"image {name} not found: no build made it yet, or its build failed") from None
        except (OSError, ValueError) as error:
            raise FailedPrecondition(
                f"image {name} cannot be read ({error}); deploy its source again"
            ) from error
        venv = None if config["venv"] is None else self.venvs / Path(config["venv"]).name
        if venv is not None and not (venv / VENV_READY).is_file():
            raise FailedPrecondition(
                f"the environment of image {name} ({venv}) is gone; deploy its source again to rebuild it"
            )
        return Image(
            name=name,
            root=folder / "root",
            workdir=config["workdir"],
            env=config["env"],
            venv=venv,
            prefixes=tuple(Path(prefix) for prefix in config["prefixes"]),
        )
