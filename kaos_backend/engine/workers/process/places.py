"""Where a worker's commands run: what they see of the machine, and how their files are named there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from kaos_backend.engine.workers import small
from kaos_backend.engine.workers.environment import datum_env
from kaos_backend.engine.workers.output import Sight
from kaos_backend.engine.workers.pfs import Pfs
from kaos_backend.engine.workers.port import DatumRun, SmallInput
from kaos_backend.engine.workers.process import environment, sandbox
from kaos_backend.engine.workers.process.images import Image
from kaos_formats.folders import clean_up
from kaos_formats.sandbox import identities, intact, layout, prepare, private, scan, visible_path


@dataclass(frozen=True, slots=True)
class Command:
    """What a launcher executes.

    `sandbox`: how bubblewrap makes the one that it runs in, in whose terms the rest is.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    sandbox: tuple[str, ...] | None = None


class Place(Protocol):
    def command(self, run: DatumRun, standing: tuple[str, ...] | None) -> Command:
        """The run's command in this place, which is made ready for it: what is in `out` is there to be seen.

        `standing`: how the sandbox was made that is there now. Raises OSError.
        """
        ...

    def collect(self, run: DatumRun) -> None:
        """Bring what a run has left into its `out`. Raises OSError."""
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
        self._pfs = Pfs(folder)
        self._mounted: Mapping[str, Path] = {}
        self._binds: tuple[str, ...] = ()
        # To put together what a sandbox is made of costs more than to see that it is the same.
        self._seen: sandbox.View | None = None
        self._made: tuple[str, ...] = ()
        self._private = private()
        prefixes = (*image.prefixes, *(prefix.resolve() for prefix in image.prefixes))
        venv = () if image.venv is None else (image.venv,)
        self._extra = tuple(dict.fromkeys((*prefixes, *venv)))
        self._devices = sandbox.gpu_devices()
        self._lay_out()
        host = dict(os.environ)
        host["PATH"] = visible_path(host.get("PATH", ""))
        self._env = environment.container(host, image, env, "/root", str)

    def command(self, run: DatumRun, standing: tuple[str, ...] | None) -> Command:
        """See `Place`."""
        self._mounted = self._pfs.to_mount(run)
        self._pfs.fill(run)
        view = self._view(run)
        if standing is None or standing != self._made or view != self._seen:
            if not intact(self._root, self._mount_points()):
                # What ran before has turned folders into links, which bubblewrap would follow.
                clean_up(self._root)
                self._lay_out()
                view = self._view(run)
            self._seen, self._made = view, sandbox.argv(self._bwrap.path, view)
        return Command(run.cmd, datum_env(self._env, run, "/pfs"), self._workdir, self._made)

    def collect(self, run: DatumRun) -> None:
        """See `Place`."""
        self._pfs.hand_over(run.out)

    def sight(self, run: DatumRun) -> Sight:
        """See `Place`."""
        return self._pfs.sight(run)

    def _mount_points(self) -> tuple[str, ...]:
        return (*self._binds, *map(str, self._extra), *self._secrets, *sandbox.OWN)

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
        return sandbox.View(
            root=self._root,
            binds=self._binds,
            hidden=(*self._bwrap.hidden, *self._private),
            extra=self._extra,
            pfs=self._pfs.root,
            inputs=self._mounted,
            out=self._pfs.out,
            devices=self._devices if run.grant.gpus else (),
            shm_bytes=run.grant.memory_bytes if self._bwrap.shm else None,
            secrets=self._secrets,
            covered=identities(self._private),
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

    def command(self, run: DatumRun, standing: tuple[str, ...] | None) -> Command:  # noqa: ARG002
        """See `Place`."""
        link_inputs(self._pfs, run)
        env = datum_env(self._env, run, str(self._pfs))
        return Command(run.cmd, env, str(self._cwd()))

    def collect(self, run: DatumRun) -> None:
        """See `Place`: it wrote there itself."""

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
    """Make `pfs` hold the small inputs of `run`, links to the others and to its output, and nothing else."""
    for old in pfs.iterdir():
        if old.is_symlink() or old.is_file():
            old.unlink()
        else:
            clean_up(old)
    for name, target in {**run.inputs, "out": run.out}.items():
        if isinstance(target, SmallInput):
            small.write(target, pfs / name)
        else:
            (pfs / name).symlink_to(target.absolute())


def linked_sight(pfs: Path, run: DatumRun) -> Sight:
    """What `link_inputs` gives to be seen."""
    given = {**run.inputs, "out": run.out}
    named = {name: pfs / name if isinstance(at, SmallInput) else at.absolute() for name, at in given.items()}
    real = {name: os.path.realpath(folder) for name, folder in named.items()}
    links = {str(pfs / name): target for name, target in real.items()}
    # And by the engine's own name for it, which need not be free of links.
    links |= {str(folder): real[name] for name, folder in named.items()}
    links = {at: target for at, target in links.items() if at != target}
    return Sight(real["out"], {real[name]: (name, input_) for name, input_ in run.inputs.items()}, links)


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
