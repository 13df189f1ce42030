"""Reads the image store that the venv builder writes: see `kaos_formats.images`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from kaos_backend.engine.errors import FailedPrecondition, NotFound, Unknown
from kaos_backend.engine.workers.port import missing
from kaos_formats.folders import clean_up
from kaos_formats.images import BUILDING, CONFIG, LAYERS, MAKING, OWN_PREFIX, ROOT, VENV_READY, directory_name

# What a builder that died left of a layer.
_LEFT_S = 24 * 3600.0


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


class _Config(msgspec.Struct):
    """What the runtime reads of a `config.json`. `program`: what the image is made to run, if it says so."""

    workdir: str
    env: dict[str, str]
    venv: str | None
    prefixes: tuple[str, ...]
    program: str | None = None


class _Named(msgspec.Struct):
    name: str


class ImageStore:
    """The images below an engine directory. The builder renames complete folders in."""

    def __init__(self, engine_dir: Path) -> None:
        self.images = engine_dir / "images"
        self.venvs = engine_dir / "venvs"
        self.layers = engine_dir / "layers"

    def get(self, name: str) -> Image:
        """The image called `name`.

        Names outside `kaos/` are images of registries, which a runtime without containers cannot pull: they
        stand for the host's own programs and files.

        Raises:
            NotFound: a `kaos/` image that was not built, or was removed.
            FailedPrecondition: one that was damaged, or whose environment is gone.
            Unknown: the disk does not say.
        """
        if not name.startswith(OWN_PREFIX):
            return Image(name=name, root=None, workdir="/")
        folder = self.images / directory_name(name)
        root = folder / ROOT
        try:
            config = msgspec.json.decode((folder / CONFIG).read_bytes(), type=_Config)
            venv = None if config.venv is None else self.venvs / Path(config.venv).name
            program = None if config.program is None else root / config.program.lstrip("/")
            if program and not (program.exists() and os.access(program, os.X_OK)):
                raise FailedPrecondition(missing(name, f"has lost its {config.program}"))
            if venv and not ((venv / VENV_READY).is_file() and (venv / "bin" / "python").exists()):
                raise FailedPrecondition(missing(name, f"has lost its environment: {venv} is gone"))
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(missing(name)) from None
        except (IsADirectoryError, msgspec.MsgspecError) as error:
            raise FailedPrecondition(missing(name, f"cannot be read ({error})")) from error
        except OSError as error:  # which may pass
            raise Unknown(f"image {name} cannot be looked at: {error}") from error
        return Image(
            name=name,
            root=root,
            workdir=config.workdir,
            env=config.env,
            venv=venv,
            prefixes=tuple(Path(prefix) for prefix in config.prefixes),
        )

    def keep(self, wanted: Callable[[str], bool]) -> None:
        """Remove the images that are not wanted, by name, and layers that no image names any more.

        What runs has copies of its own, and a build that finds a layer gone makes it again.
        """
        for folder in list(self.images.glob("*/")):
            if folder.name == BUILDING:
                continue
            try:
                name = msgspec.json.decode((folder / CONFIG).read_bytes(), type=_Named).name
            except (OSError, msgspec.MsgspecError):
                continue  # whose it was cannot be told
            if not wanted(name):
                away = self.images / BUILDING / f"{folder.name}.gone"
                away.parent.mkdir(exist_ok=True)
                clean_up(away)
                folder.rename(away)
                clean_up(away)
        self._keep_layers()

    def _keep_layers(self) -> None:
        named: set[str] = set()
        for image in self.images.glob(f"*/{LAYERS}"):
            with suppress(OSError, msgspec.MsgspecError):
                named.update(msgspec.json.decode(image.read_bytes(), type=list[str]))
        making = self.layers / MAKING
        for layer in [one for one in self.layers.glob("*/") if one.name not in (MAKING, *named)]:
            making.mkdir(exist_ok=True)
            with suppress(OSError):
                layer.rename(making / f"{layer.name}.gone")
        for left in list(making.glob("*/")):
            with suppress(OSError):
                if left.suffix or left.stat().st_mtime < time.time() - _LEFT_S:
                    clean_up(left)
