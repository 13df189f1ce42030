"""One worker slot: a folder, and a container that runs one datum after the other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import docker

from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.workers.docker.container import Container, Ended, Setting, Shape
from kaos_backend.engine.workers.docker.engine import told
from kaos_backend.engine.workers.docker.images import Image
from kaos_backend.engine.workers.environment import datum_env
from kaos_backend.engine.workers.output import FolderOutput
from kaos_backend.engine.workers.pfs import Pfs
from kaos_backend.engine.workers.port import DatumRun, Exit
from kaos_backend.engine.workers.process.launch import failed
from kaos_formats.folders import clean_up

log = logging.getLogger(__name__)

_SIGNALS = 128


class DockerWorker:
    """Runs datums in a container of its own, which is made at the first of them.

    Args:
        folder: what the worker writes outside its container; made here, gone with the worker.
        api: used by this worker alone; closed with it.
        env: the constant part of the environment.
    """

    def __init__(
        self,
        folder: Path,
        api: docker.APIClient,
        image: Image,
        env: Mapping[str, str],
        setting: Setting,
        secrets: Mapping[str, Mapping[str, bytes]],
    ) -> None:
        self.folder = folder
        self._api = api
        self._image = image
        self._env = env
        self.setting = setting
        self._secrets = secrets
        self.container: Container | None = None
        self._lock = threading.Lock()
        self._closed = False
        folder.mkdir(parents=True)
        self._pfs = Pfs(folder)

    @property
    def host(self) -> str:
        """See `port.Worker`."""
        container = self.container
        return "127.0.0.1" if container is None else container.address()

    def run(self, run: DatumRun, cancel: threading.Event) -> Exit:
        """Run one datum; see `port.Worker`."""
        started = time.monotonic()
        if self._closed:
            return failed("the worker was closed", started)
        if cancel.is_set():
            return Exit(None, None, "canceled", "", 0, 0.0)
        output = None
        try:
            with told("the container is lost"):
                container = self._ready(run)
                output = FolderOutput(run.out, self._pfs.sight(run))
                ended = container.execute(
                    run.cmd,
                    run.stdin,
                    self._datum_env(run),
                    self._image.user,
                    run.log,
                    run.timeout_s,
                    cancel,
                    run.terminal,
                )
                self._pfs.hand_over(run.out)
            return replace(_exit(ended, run, started), output=output, image=self._image.digest)
        except (EngineError, ValueError) as error:
            if output is not None:
                output.close()
            self._drop()
            if self._closed or cancel.is_set():
                return Exit(None, None, "canceled", "", 0, time.monotonic() - started)
            return failed(error.message if isinstance(error, EngineError) else str(error), started)

    def close(self) -> None:
        """Remove the container, and with it a running datum; remove the worker's files."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._drop()
        self._api.close()
        clean_up(self.folder)

    def _ready(self, run: DatumRun) -> Container:
        """A container that `run` can run in, with its files in place."""
        container = self.container
        shape = Shape(
            image=self._image.id,
            workdir=self._image.workdir,
            cpu=run.grant.cpu,
            memory_bytes=run.grant.memory_bytes,
            gpus=run.grant.gpus,
            inputs=tuple(sorted(self._pfs.to_mount(run).items())),
            secrets=tuple(self._secrets),
        )
        if container is not None and container.shape != shape:
            self._drop()
            container = None
        self._pfs.fill(run)
        if container is None:
            container = Container(self._api, shape, self._pfs, self.setting)
            self._keep(container)
            container.fill(self._secrets)
        return container

    def _keep(self, container: Container) -> None:
        with self._lock:
            if not self._closed:
                self.container = container
                return
        container.close()
        raise ValueError("the worker was closed")

    def _drop(self) -> None:
        with self._lock:
            container, self.container = self.container, None
        if container is not None:
            try:
                container.close()
            except Exception as error:
                log.warning("container %s is left over: %s", container.id[:12], error)

    def _datum_env(self, run: DatumRun) -> dict[str, str]:
        # In the container its GPUs are numbered from 0; MIG instances keep their names.
        numbered = (gpu if gpu.startswith("MIG-") else str(i) for i, gpu in enumerate(run.grant.gpus))
        grant = replace(run.grant, gpus=tuple(numbered))
        return datum_env(self._env, replace(run, grant=grant), "/pfs")


def _exit(ended: Ended, run: DatumRun, started: float) -> Exit:
    code, number, reason, message = ended.code, None, ended.reason, ""
    if code is not None and code > _SIGNALS:
        number = code - _SIGNALS
    if ended.oom and reason == "exited":
        reason = "oom"
        limit = run.grant.memory_bytes
        used = max(ended.peak_bytes, limit or 0)
        of = (
            f"{_mib(limit)} MiB"
            if limit is not None
            else "no limit of its own; the machine ran out of memory"
        )
        message = f"used {_mib(used)} MiB of {of}"
    elif reason == "exited" and number is not None:
        reason = "signal"
    return Exit(code, number, reason, message, ended.peak_bytes, time.monotonic() - started)


def _mib(size: int) -> int:
    return -(-size // (1 << 20))
