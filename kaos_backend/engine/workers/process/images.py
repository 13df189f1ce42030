"""Reads the image store that the venv builder writes: see `kaos_formats.images`."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from kaos_backend.engine.errors import FailedPrecondition, NotFound, Unknown
from kaos_backend.engine.workers.port import StoredImage, missing
from kaos_formats.folders import clean_up, disk_bytes
from kaos_formats.home import is_locked
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
    venv: str | None = None


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

    def keep(self, wanted: Callable[[str], bool]) -> bool:
        """Remove the images that are not wanted, by name, and environments and layers that no image needs any
        more; False if environments stay as some build goes on.

        What runs has copies of its own of an image's files, and a build that finds a layer gone makes it
        again.
        """
        for folder, named in self._named():
            if not wanted(named.name):
                away = self.images / BUILDING / f"{folder.name}.gone"
                away.parent.mkdir(exist_ok=True)
                clean_up(away)
                folder.rename(away)
                clean_up(away)
        self._keep_layers()
        return self._keep_environments()

    def stored(self) -> list[StoredImage]:
        """What there is of images, environments and layers, and who needs it."""
        found = []
        needs: dict[Path, set[str]] = defaultdict(set)
        for folder, named in self._named():
            found.append(StoredImage("image", named.name, disk_bytes(folder), frozenset({named.name})))
            if named.venv is not None:
                needs[self.venvs / Path(named.venv).name].add(named.name)
            for layer in _layers_of(folder):
                needs[self.layers / layer].add(named.name)
        kinds: tuple[tuple[Literal["environment", "layer"], Path], ...] = (
            ("environment", self.venvs),
            ("layer", self.layers),
        )
        for kind, parent in kinds:
            found += [
                StoredImage(kind, one.name, disk_bytes(one), frozenset(needs[one]))
                for one in _entries(parent)
            ]
        return found

    def _named(self) -> Iterator[tuple[Path, _Named]]:
        """The images that there are; not one of which it cannot be told whose it was."""
        for folder in list(self.images.glob("*/")):
            if folder.name != BUILDING:
                with suppress(OSError, msgspec.MsgspecError):
                    yield folder, msgspec.json.decode((folder / CONFIG).read_bytes(), type=_Named)

    def _keep_environments(self) -> bool:
        """A build looks for its environment after it has locked a folder in `BUILDING`, and lets go of that
        when its image names it. So what no image names is nobody's while no such lock is held.
        """
        if self._is_building():
            return False
        named = {Path(one.venv).name for _, one in self._named() if one.venv is not None}
        making = self.venvs / MAKING
        for venv in _entries(self.venvs):
            if venv.name in named:
                continue
            making.mkdir(exist_ok=True)
            away = making / f"{venv.name}.gone"
            clean_up(away)
            venv.rename(away)
            if self._is_building():
                # It began this very moment, and may have seen it.
                with suppress(OSError):
                    away.rename(venv)
                return False
            clean_up(away)
            self.venvs.joinpath(f"{venv.name}.lock").unlink(missing_ok=True)
        return True

    def _is_building(self) -> bool:
        return any(is_locked(lock) for lock in (self.images / BUILDING).glob("*.lock"))

    def _keep_layers(self) -> None:
        named = {layer for image in self.images.glob("*/") for layer in _layers_of(image)}
        making = self.layers / MAKING
        for layer in [one for one in self.layers.glob("*/") if one.name not in (MAKING, *named)]:
            making.mkdir(exist_ok=True)
            with suppress(OSError):
                layer.rename(making / f"{layer.name}.gone")
        for left in list(making.glob("*/")):
            with suppress(OSError):
                if left.suffix or left.stat().st_mtime < time.time() - _LEFT_S:
                    clean_up(left)


def _layers_of(image: Path) -> list[str]:
    try:
        return msgspec.json.decode((image / LAYERS).read_bytes(), type=list[str])
    except (OSError, msgspec.MsgspecError):
        return []


def _entries(parent: Path) -> list[Path]:
    """What is complete in a folder of environments or layers."""
    return [one for one in parent.glob("*/") if not one.name.startswith(".")]
