"""The builders' workers: the engine's own interpreter on `kaos_pipelines.build` (and `.fetch`), outside any
sandbox.

It writes the image store that the process runtime reads, or asks the Docker engine; and pip must find its
configuration. What a Dockerfile runs it puts into sandboxes of its own.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from kaos_backend.engine.errors import Unknown
from kaos_backend.engine.workers.environment import datum_env
from kaos_backend.engine.workers.output import Sight
from kaos_backend.engine.workers.port import DatumRun, WorkerSpec
from kaos_backend.engine.workers.process import environment
from kaos_backend.engine.workers.process.fork import builds
from kaos_backend.engine.workers.process.places import Bubblewrap, Command, Place, link_inputs, linked_sight
from kaos_backend.engine.workers.process.worker import ProcessWorker
from kaos_formats.folders import empty_folder, folder
from kaos_formats.images import home_label

log = logging.getLogger(__name__)

# What the engine's environment says about builds and fetches, beside what their programs read themselves.
_SETTINGS = (
    "KAOS_BUILD_CA",
    "KAOS_REGISTRY",
    "KAOS_FETCH_PRIVATE",
    "KAOS_FETCH_ALLOW",
    "KAOS_FETCH_CACHE_BYTES",
    "KAOS_FETCH_PARALLEL",
)


class HostBuilder:
    """Makes images: with "venv" of files and a virtual environment, images/ and venvs/ in `engine_dir`; with
    "docker" on the Docker engine.

    Args:
        facts: what builds are told of where they are carried out, as variables; raises EngineError while none
        can succeed here, whatever it builds.
        bwrap: how "venv" makes the sandboxes that its RUNs are carried out in; without one it emulates them.
        fetched: the folder where fetches keep what they have got until somebody needs the room.
    """

    def __init__(
        self,
        engine_dir: Path,
        name: Literal["venv", "docker"],
        facts: Callable[[], Mapping[str, str]] = dict,
        bwrap: Bubblewrap | None = None,
        fetched: Path | None = None,
    ) -> None:
        self.name: str = name
        self._facts = facts
        self._settings: dict[str, str] = {"KAOS_BUILDER": name}
        if bwrap is not None:
            hidden = os.pathsep.join(map(str, bwrap.hidden))
            self._settings |= {"KAOS_BWRAP": bwrap.path, "KAOS_HIDDEN": hidden}
        if fetched is not None:
            self._settings["KAOS_FETCH_CACHE"] = str(fetched)
        self._server = builds(name)
        self._engine_dir = engine_dir.absolute()
        self._scratch = empty_folder(folder(self._engine_dir / "scratch") / "builders")
        for made_again in ("images", "venvs"):
            folder(self._engine_dir / made_again)

    def warm_up(self) -> None:
        """See `port.Builder`."""
        try:
            self._server.warm_up()
        except OSError as error:
            log.warning("builds start more slowly: %s", error)

    def start_worker(self, spec: WorkerSpec) -> ProcessWorker:
        """Raises EngineError when the build's program is not installed or no files can be written, and what
        `facts` does.
        """
        facts = self._facts()
        if spec.secrets:
            raise Unknown("builds take secrets as variables: give them an env_var in place of a mount_path")
        try:
            place = partial(self._place, spec=spec, facts=facts)
            return ProcessWorker(self._scratch / uuid.uuid4().hex, place, start=self._server.launch)
        except OSError as error:
            raise Unknown(f"cannot start a builder: {error}") from error

    def _place(self, folder: Path, *, spec: WorkerSpec, facts: Mapping[str, str]) -> Place:
        found = importlib.util.find_spec("kaos_pipelines")
        if found is None or not found.submodule_search_locations:
            raise OSError("the package kaos_pipelines is not installed beside kaos_backend")
        python_path = str(Path(found.submodule_search_locations[0]).parent)
        env = environment.builder(os.environ, spec.env, self._engine_dir, python_path)
        settings = {name: os.environ[name] for name in _SETTINGS if os.environ.get(name)}
        settings["KAOS_HOME_LABEL"] = home_label(self._engine_dir)
        return _BuildPlace(folder, {**env, **settings, **self._settings, **facts})


class _BuildPlace:
    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._pfs, self._work, self._env = folder / "pfs", folder / "work", env
        self._pfs.mkdir()
        self._work.mkdir()

    def command(self, run: DatumRun, standing: tuple[str, ...] | None) -> Command:  # noqa: ARG002
        """See `Place`."""
        link_inputs(self._pfs, run)
        argv = (sys.executable, *run.cmd[1:]) if run.cmd[0] == "python" else run.cmd
        env = datum_env(self._env, run, str(self._pfs))
        return Command(argv, env, str(self._work))

    def collect(self, run: DatumRun) -> None:
        """See `Place`: it wrote there itself."""

    def sight(self, run: DatumRun) -> Sight:
        return linked_sight(self._pfs, run)
