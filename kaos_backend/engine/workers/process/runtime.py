"""The process runtime: workers are processes of this machine, in a bubblewrap sandbox where that works."""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from kaos_backend.engine.errors import EngineError, Unknown
from kaos_backend.engine.workers.port import StoredImage, WorkerSpec
from kaos_backend.engine.workers.process import sandbox
from kaos_backend.engine.workers.process.cgroup import Groups
from kaos_backend.engine.workers.process.fork import trials
from kaos_backend.engine.workers.process.images import Image, ImageStore
from kaos_backend.engine.workers.process.places import Bare, Bubblewrap, Place, Sandbox
from kaos_backend.engine.workers.process.secrets import SecretFolders
from kaos_backend.engine.workers.process.worker import ProcessWorker
from kaos_formats.folders import clean_up, empty_folder, folder

NOT_ISOLATED = (
    "code sees and may change what this user may: only file modes protect inputs and other trials",
    "/pfs does not exist: code finds its files by environment variables ($KAOS_DATA_DIR, $PACH_PFS, …)",
    "absolute image paths such as /app do not exist: code starts in WORKDIR and must stay relative",
    "RUN has no shell: pip, uv, file commands and tests are carried out, the rest is refused with its line",
)
ALWAYS_SHARED = (
    "the network is the host's",
    "USER of the Dockerfile is ignored: code runs as the engine's user",
)
_STARTS = 4
FOREIGN = "kaos: image {} is of a registry; the process runtime uses this machine's own programs in its place"


class ProcessRuntime:
    """Runs datums as processes.

    Args:
        engine_dir: holds images/ and venvs/ (read) and scratch/workers/ (written; emptied at start).
        home: KAOS_HOME, kept out of every sandbox.
        isolate: None = sandbox if bubblewrap works here; False = never; True = raise EngineError if it does
        not.
        control: the same for control groups, by which the kernel limits memory and cores.
    """

    name = "process"
    own_network = False

    def __init__(
        self,
        engine_dir: Path,
        home: Path | None = None,
        isolate: bool | None = None,
        control: bool | None = None,
    ) -> None:
        engine_dir = engine_dir.absolute()
        hidden = tuple({engine_dir, (home or engine_dir).absolute()})
        self._store = ImageStore(engine_dir)
        self._scratch = empty_folder(folder(engine_dir / "scratch") / "workers")
        self._secrets = SecretFolders(engine_dir)
        # A hundred at once would take the interpreter from one another, and from whoever asks for something.
        self._starting = threading.Semaphore(_STARTS)
        self.bwrap, why = _find_bwrap(hidden) if isolate is not False else (None, "switched off")
        if isolate and self.bwrap is None:
            raise Unknown(f"isolation was asked for, but {why}")
        self.isolation = "bubblewrap" if self.bwrap else "none"
        self.notes: tuple[str, ...] = ALWAYS_SHARED
        if not self.bwrap:
            self.notes = (f"no sandbox: {why}; install bubblewrap for one", *NOT_ISOLATED, *ALWAYS_SHARED)
        self._groups, why = _make_groups(engine_dir) if control is not False else (None, "switched off")
        if control and self._groups is None:
            raise Unknown(f"limits by control groups were asked for, but {why}")
        by = f"the kernel (cgroup v{self._groups.version})" if self._groups else f"sampling ({why})"
        self.notes += (f"the memory of trials is limited by {by}",)

    def image_problem(self, image: str) -> str:
        """See `port.Runtime`."""
        try:
            self._store.get(image)
        except EngineError as error:
            return error.message
        return ""

    def keep_images(self, wanted: Callable[[str], bool]) -> bool:
        """See `port.Runtime`. Environments stay while a build goes on, which may be about to need one."""
        try:
            return self._store.keep(wanted)
        except OSError as error:
            raise Unknown(f"forgotten images cannot be removed: {error}") from error

    def stored_images(self) -> list[StoredImage]:
        """See `port.Runtime`."""
        try:
            return self._store.stored()
        except OSError as error:
            raise Unknown(f"images cannot be listed: {error}") from error

    def protects_inputs(self, image: str) -> bool:  # noqa: ARG002
        """See `port.Runtime`: in a sandbox they are mounted read-only."""
        return self.bwrap is not None

    def start_worker(self, spec: WorkerSpec) -> ProcessWorker:
        """Start a worker with a private copy of the image's files.

        Raises EngineError when the image is missing or broken, or when the files cannot be written.
        """
        image = self._store.get(spec.image)
        notice = FOREIGN.format(image.name or '""') if image.root is None else ""
        private: Path | None = None
        secrets: dict[str, Path] = {}
        try:
            if spec.secrets:
                private, secrets = self._secrets.make(spec.secrets)
            name = uuid.uuid4().hex
            group = self._groups.make(name) if self._groups else None
            place = partial(self._place, spec=spec, image=image, secrets=secrets)
            with self._starting:
                return ProcessWorker(self._scratch / name, place, notice, group, private, trials().launch)
        except (OSError, shutil.Error) as error:
            if private is not None:
                clean_up(private)
            raise Unknown(f"cannot start a worker of image {spec.image}: {error}") from error

    def _place(self, folder: Path, *, spec: WorkerSpec, image: Image, secrets: Mapping[str, Path]) -> Place:
        workdir = spec.working_dir or image.workdir
        if self.bwrap is not None:
            return Sandbox(folder, image, workdir, spec.env, self.bwrap, secrets)
        return Bare(folder, image, workdir, spec.env, secrets)


def _make_groups(owner: Path) -> tuple[Groups | None, str]:
    """(them, if this user may make any, why not)."""
    try:
        return Groups(owner), ""
    except OSError as error:
        return None, error.strerror or str(error)


def _find_bwrap(hidden: tuple[Path, ...]) -> tuple[Bubblewrap | None, str]:
    """(it, if it works here, why not)."""
    path = shutil.which("bwrap")
    why = None
    for shm in (True, False):
        why = sandbox.probe(path, shm)
        if path is not None and why is None:
            return Bubblewrap(path, shm, hidden), ""
    return None, why or ""
