"""The Docker runtime: workers are containers, on a Docker engine of this machine."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import docker

from kaos_backend.engine.errors import EngineError, Unknown
from kaos_backend.engine.workers.docker import images
from kaos_backend.engine.workers.docker.container import Setting
from kaos_backend.engine.workers.docker.engine import connect, owner_in_containers, told
from kaos_backend.engine.workers.docker.worker import DockerWorker
from kaos_backend.engine.workers.port import StoredImage, WorkerSpec, missing
from kaos_formats.folders import empty_folder, folder
from kaos_formats.images import home_label
from kaos_formats.proxies import proxies_of

log = logging.getLogger(__name__)

HOME_LABEL = "kaos.home"
WORKER_LABEL = "kaos.worker"
_ASK_AGAIN_S = 30.0
# For a registry that does not answer: all jobs wait meanwhile.
_PATIENCE_S = 5


class DockerRuntime:
    """Runs datums in containers.

    The Docker engine need not answer when this is made: then no worker starts, with that as the reason.

    Args:
        engine_dir: holds scratch/workers/ (written; emptied at start) and names the containers' owner: those
            that an earlier life of this home has left are removed, no others.
        env: DOCKER_HOST says which engine.
        registry: has kaos' own images which are not on this machine ("host:port/prefix"; "": there is none).
        network: whether trials have one.
    """

    name = "docker"
    isolation = "containers"

    def __init__(
        self, engine_dir: Path, env: Mapping[str, str], network: bool = True, registry: str = ""
    ) -> None:
        engine_dir = engine_dir.absolute()
        self._env = dict(env)
        self._wants_network = network
        self._registry = registry
        # What the registry's answer about an image meant, and when that was (monotonic).
        self._answers: dict[str, tuple[float, str]] = {}
        self._scratch = empty_folder(folder(engine_dir / "scratch") / "workers")
        self.label = home_label(engine_dir)
        self._lock = threading.Lock()
        self._known: Setting | None = None
        self.notes: tuple[str, ...] = (self._note(),)
        if registry:
            self.notes += (f"images are pushed to {registry}, and pulled from there",)

    @property
    def own_network(self) -> bool:
        return self._setting().network != "host"

    def image_problem(self, image: str) -> str:
        """See `port.Runtime`. An image of a registry that is not here yet is pulled by the first worker."""
        try:
            with self._client() as api:
                if images.find(api, image) is not None or not images.is_own(image):
                    return ""
        except EngineError as error:
            return error.message
        return self._pull_problem(image) if self._registry else missing(image)

    def _pull_problem(self, image: str) -> str:
        """Why one of kaos' own images cannot be had from the registry."""
        # Asked for twice a second, as long as an image is being built.
        when, problem = self._answers.get(image, (-math.inf, ""))
        if time.monotonic() - when < _ASK_AGAIN_S:
            return problem
        try:
            with connect(self._env, _PATIENCE_S) as api:
                there = images.in_registry(api, image, self._registry)
                problem = "" if there else missing(image)
        except EngineError as error:
            problem = error.message
        self._answers[image] = time.monotonic(), problem
        return problem

    def keep_images(self, wanted: Callable[[str], bool]) -> bool:
        """See `port.Runtime`."""
        with self._client() as api:
            return images.keep(api, self.label, wanted)

    def protects_inputs(self, image: str) -> bool:  # noqa: ARG002
        """See `port.Runtime`: they are mounted read-only."""
        return True

    def stored_images(self) -> list[StoredImage]:
        """See `port.Runtime`; layers that images share are counted with each."""
        with self._client() as api:
            return images.stored(api, self.label)

    def start_worker(self, spec: WorkerSpec) -> DockerWorker:
        """See `port.Runtime`; the container itself is made at the worker's first datum."""
        setting = self._setting()
        api = self._client()
        try:
            image = images.obtain(api, spec.image, self.label, self._registry)
            return DockerWorker(
                self._scratch / uuid.uuid4().hex,
                api,
                image.run_as(spec.user, spec.working_dir),
                proxies_of(os.environ) | dict(image.env) | {"PYTHONUNBUFFERED": "1"} | dict(spec.env),
                Setting(setting.owner, setting.network, {**setting.labels, WORKER_LABEL: spec.name}),
                spec.secrets,
            )
        except OSError as error:
            api.close()
            raise Unknown(f"cannot start a worker of image {spec.image}: {error}") from error
        except BaseException:
            api.close()
            raise

    def _client(self) -> docker.APIClient:
        return connect(self._env)

    def _setting(self) -> Setting:
        """What containers have in common; found out, and the left-over ones swept, when first asked."""
        with self._lock:
            if self._known is None:
                with self._client() as api, told("the Docker engine cannot be asked"):
                    info = api.info()
                    owner = owner_in_containers(info, os.geteuid(), os.getegid())
                    labels = {HOME_LABEL: self.label}
                    self._known = Setting(owner, self._network(api), labels)
                    _sweep(api, f"{HOME_LABEL}={self.label}")
            return self._known

    def _network(self, api: docker.APIClient) -> str:
        if not self._wants_network:
            return "none"
        names = {network["Name"] for network in api.networks()}
        # An engine that was started without a bridge has only the host's.
        return "bridge" if "bridge" in names else "host"

    def _note(self) -> str:
        try:
            setting = self._setting()
        except EngineError as error:
            return f"nothing can run: {error.message}"
        return {
            "none": "trials have no network",
            "host": "the network of trials is the host's: the Docker engine has no bridge",
        }.get(setting.network, "trials have a network of their own (Docker's bridge)")


def _sweep(api: docker.APIClient, label: str) -> None:
    for container in api.containers(all=True, filters={"label": label}):
        log.warning("container %s was left over and is removed", container["Id"][:12])
        try:
            api.remove_container(container["Id"], force=True, v=True)
        except docker.errors.APIError as error:
            log.warning("container %s stays: %s", container["Id"][:12], error)
