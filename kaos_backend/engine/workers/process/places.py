"""Where a worker's commands run: what they see of the machine, and how their files are named there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from kaos_backend.engine.workers.environment import datum_env
from kaos_backend.engine.workers.output import Sight
from kaos_backend.engine.workers.port import DatumRun
from kaos_backend.engine.workers.process import environment, sandbox
from kaos_backend.engine.workers.process.images import Image
from kaos_formats.folders import clean_up
from kaos_formats.sandbox import intact, layout, prepare, private, scan, split_environment, visible_path


@dataclass(frozen=True, slots=True)
class Command:
    """What a launcher executes, in terms of the host."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    sandboxed: bool


class Place(Protocol):
    def command(self, run: DatumRun) -> Command:
        """The run's command in this place. Raises OSError when the place cannot be made ready for it."""
        ...

    def sight(self, run: DatumRun) -> Sight:
        """Where the run sees its inputs and its output."""
        ...


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """How sandboxes are made here. `hidden`: folders of the host kept out; `shm`: /dev/shm can be sized."""

    path: str
    shm: bool
    hidden: tuple[Path, ...]


class Sandbox:
    """A bubblewrap sandbox over a private copy of the image's files in `folder`."""

    def __init__(
        self,
        folder: Path,
        image: Image,
        workdir: str,
        env: Mapping[str, str],
        bwrap: Bubblewrap,
        secrets: Mapping[str, Path],
    ) -> None:
        self._secrets = secrets
        self._root, self._image, self._workdir, self._bwrap = folder / "root", image, workdir, bwrap
        self._binds: tuple[str, ...] = ()
        self._hidden = (*bwrap.hidden, *private())
        self._devices = sandbox.gpu_devices()
        self._lay_out()
        host = dict(os.environ)
        host["PATH"] = visible_path(host.get("PATH", ""))
        self._env = environment.container(host, image, env, "/root", str)

    def command(self, run: DatumRun) -> Command:
        view = self._view(run)
        if not intact(self._root, view.mount_points):
            clean_up(self._root)
            self._lay_out()
        env, inside = split_environment(datum_env(self._env, run, "/pfs"))
        argv = sandbox.argv(self._bwrap.path, view, run.cmd, inside)
        return Command(tuple(argv), env, "/", sandboxed=True)

    def sight(self, run: DatumRun) -> Sight:
        inputs = {f"/pfs/{name}": (name, folder) for name, folder in run.inputs.items()}
        return Sight("/pfs/out", inputs)

    def _lay_out(self) -> None:
        """A fresh copy of the image's files, and what is mounted over them."""
        _copy_image(self._image, self._root)
        for path in self._secrets:
            _make_folder(self._root, path)
        if not intact(self._root, self._secrets):
            raise OSError(
                f"links of the image are in the way of {', '.join(self._secrets)}: choose another path"
            )
        plan = layout(scan(self._root), scan(Path("/")))
        prepare(self._root, plan)
        self._binds = plan.binds
        _make_folder(self._root, self._workdir)

    def _view(self, run: DatumRun) -> sandbox.View:
        prefixes = (*self._image.prefixes, *(prefix.resolve() for prefix in self._image.prefixes))
        venv = () if self._image.venv is None else (self._image.venv,)
        return sandbox.View(
            root=self._root,
            binds=self._binds,
            hidden=self._hidden,
            extra=tuple(dict.fromkeys((*prefixes, *venv))),
            inputs=run.inputs,
            out=run.out,
            workdir=self._workdir,
            devices=self._devices if run.grant.gpus else (),
            shm_bytes=run.grant.memory_bytes if self._bwrap.shm else None,
            secrets=self._secrets,
        )


class Bare:
    """No sandbox: the host as the engine's user sees it, a copy of the image's files, a /pfs of links."""

    def __init__(
        self,
        folder: Path,
        image: Image,
        workdir: str,
        env: Mapping[str, str],
        secrets: Mapping[str, Path],
    ) -> None:
        self._root, self._pfs, self._workdir = folder / "root", folder / "pfs", workdir
        home, tmp = folder / "home", self._root / "tmp"
        _copy_image(image, self._root)
        _make_folder(self._root, workdir)
        for path in (self._pfs, home):
            path.mkdir()
        tmp.mkdir(exist_ok=True)
        for place, source in secrets.items():
            _make_folder(self._root, str(PurePosixPath(place).parent))
            (self._root / place.strip("/")).symlink_to(source)
        self._env = environment.container(os.environ, image, env, str(home), self._locate)
        self._env.setdefault("TMPDIR", str(tmp))

    def command(self, run: DatumRun) -> Command:
        link_inputs(self._pfs, run)
        env = datum_env(self._env, run, str(self._pfs))
        return Command(run.cmd, env, str(self._cwd()), sandboxed=False)

    def sight(self, run: DatumRun) -> Sight:
        return linked_sight(self._pfs, run)

    def _locate(self, image_path: str) -> str:
        """Where an image path is on the host, if the image has it; else the path itself."""
        inside = self._root / image_path.lstrip("/")
        return (
            str(inside) if image_path.strip("/") and image_path[0] == "/" and inside.exists() else image_path
        )

    def _cwd(self) -> Path:
        """The working directory; /pfs paths lead to the datum's own /pfs."""
        relative = self._workdir.strip("/")
        if relative == "pfs" or relative.startswith("pfs/"):
            return self._pfs / relative[4:]
        return self._root / relative


def link_inputs(pfs: Path, run: DatumRun) -> None:
    """Make `pfs` hold a link per input of `run`, one to its output, and nothing else."""
    for old in pfs.iterdir():
        if old.is_symlink() or old.is_file():
            old.unlink()
        else:
            clean_up(old)
    for name, target in {**run.inputs, "out": run.out}.items():
        (pfs / name).symlink_to(target.absolute())


def linked_sight(pfs: Path, run: DatumRun) -> Sight:
    """What `link_inputs` gives to be seen."""
    real = {name: os.path.realpath(folder) for name, folder in {**run.inputs, "out": run.out}.items()}
    links = {str(pfs / name): target for name, target in real.items()}
    # And by the engine's own name for it, which need not be free of links.
    named = {str(folder.absolute()): real[name] for name, folder in {**run.inputs, "out": run.out}.items()}
    links |= {name: target for name, target in named.items() if name != target}
    return Sight(real["out"], {real[name]: (name, folder) for name, folder in run.inputs.items()}, links)


def _copy_image(image: Image, root: Path) -> None:
    if image.root is not None:
        shutil.copytree(image.root, root, symlinks=True)
    root.mkdir(parents=True, exist_ok=True)


def _make_folder(root: Path, image_path: str) -> None:
    """WORKDIR, if the image lacks it; links on the way are the image's own business and not followed."""
    folder = root
    for name in image_path.strip("/").split("/"):
        folder = folder / name
        if folder.is_symlink() or name in ("..", "pfs"):
            return
        folder.mkdir(exist_ok=True)
