"""One container of a worker: started once, it runs any number of commands, one at a time."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import docker
from docker.errors import APIError, NotFound
from docker.types import DeviceRequest, LogConfig, Mount

from kaos_backend.engine.errors import Unknown
from kaos_backend.engine.workers.docker.keeper import SCRIPT, Counts, Keeper
from kaos_backend.engine.workers.docker.stream import Stream
from kaos_backend.engine.workers.docker.terminal import TerminalStream
from kaos_backend.engine.workers.log import Log
from kaos_backend.engine.workers.pfs import Pfs
from kaos_backend.engine.workers.port import Reason
from kaos_backend.engine.workers.terminal import Terminal

log = logging.getLogger(__name__)

# The least that Docker takes.
_MEMORY_MIN = 6 << 20
_CPU_MIN = 0.01
_SECRETS_BYTES = 4 << 20
# As in the process runtime: should the machine itself run out of memory, trials go before anything else.
_OOM_SCORE_ADJ = 500
_ANSWER_S = 30.0
_TICK_S = 0.05
_LOOK_S = 0.25
_DRAIN_S = 5.0
# What runc says in place of a command that cannot be started.
_REFUSED = re.compile(r"(?:OCI runtime exec failed: .*)?exec:? (.*?)(?:: unknown)?\s*\Z", re.DOTALL)
_ROOT = ("", "0", "root", "0:0", "root:root")
_KILLED = 137  # as a shell tells of SIGKILL
_REFUSED_CODES = (1, 126, 127, 255)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a container is made for, and cannot change."""

    image: str
    workdir: str
    cpu: float
    memory_bytes: int | None
    gpus: tuple[str, ...]
    inputs: tuple[tuple[str, Path], ...]
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """What the containers of one home have in common.

    `owner`: who what trials write shall belong to in the end, as `uid:gid`; "" leaves it to root. `network`:
    the name of a Docker network.
    """

    owner: str
    network: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended. `code` is None when it is not known to have begun."""

    code: int | None
    reason: Reason
    oom: bool
    peak_bytes: int


class Container:
    """A container whose init keeps it until `close`, or until this process is gone.

    Args:
        api: used by this container alone.
        pfs: appears as /pfs; its mount points are there.

    Raises:
        DockerException, OSError: it could not be started.
    """

    def __init__(self, api: docker.APIClient, shape: Shape, pfs: Pfs, setting: Setting) -> None:
        self.shape = shape
        self._api = api
        self._owner = setting.owner
        self._keeper: Keeper | None = None
        self.id: str = api.create_container(
            shape.image,
            entrypoint=["sh", "-c", SCRIPT],
            command=[],
            user="0:0",
            stdin_open=True,
            working_dir=shape.workdir,
            healthcheck={"test": ["NONE"]},
            labels=dict(setting.labels),
            host_config=_host_config(api, shape, pfs, setting.network),
        )["Id"]
        try:
            params = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
            self._keeper = Keeper(Stream(api.attach_socket(self.id, params=params)))
            api.start(self.id)
            self._killed = self._keeper.ready().killed
        except BaseException:
            self.close()
            raise

    def execute(
        self,
        cmd: Sequence[str],
        stdin: bytes,
        env: Mapping[str, str],
        user: str,
        log: Path,
        timeout_s: float | None,
        cancel: threading.Event,
        terminal: Terminal | None = None,
    ) -> Ended:
        """Run a command; nothing of it is alive afterwards, and what it wrote has its owner.

        Raises:
            DockerException, OSError: the engine or the container is not there any more.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        lines = _Said(log, cmd[0])
        keeper = self._kept()
        started: _Started
        if terminal is not None:
            started = _ByExec(self._api, self.id, cmd, b"", env, user, terminal)
        elif user in _ROOT and keeper.can_start(cmd, stdin, env):
            keeper.start(cmd, stdin, env, self.shape.workdir)
            started = _ByKeeper(keeper)
        else:
            started = _ByExec(self._api, self.id, cmd, stdin, env, user)
        try:
            reason, counts = self._watch(started, keeper, lines, deadline, cancel)
        finally:
            started.close()
            lines.close()
        oom, self._killed = counts.killed > self._killed, counts.killed
        code = started.code()
        if lines.refused and code in _REFUSED_CODES:
            code = 127 if "not found" in lines.refused or "no such file" in lines.refused else 126
        return Ended(code, reason, oom, counts.peak_bytes)

    def address(self) -> str:
        """Where its ports are: an address of its own, or this machine's."""
        found = self._api.inspect_container(self.id)["NetworkSettings"]
        each = [found.get("IPAddress"), *(one.get("IPAddress") for one in found.get("Networks", {}).values())]
        return next((address for address in each if address), "127.0.0.1")

    def fill(self, secrets: Mapping[str, Mapping[str, bytes]]) -> None:
        """Put files into the folders that the container was made with for secrets.

        Raises:
            Unknown: the image lacks what it takes (`cat`).
            DockerException, OSError: the engine or the container is not there any more.
        """
        for folder, files in secrets.items():
            for name, value in files.items():
                self._write(f"{folder.rstrip('/')}/{name}", value)

    def _write(self, path: str, value: bytes) -> None:
        command = ("sh", "-c", 'umask 022; cat > "$1"', "sh", path)
        started = _ByExec(self._api, self.id, command, value, {}, "0:0")
        said = b""
        try:
            until = time.monotonic() + _ANSWER_S
            while not started.ended and time.monotonic() < until:
                said += started.receive(_TICK_S)
        finally:
            started.close()
        if started.code() != 0:
            raise Unknown(f"a secret cannot be put at {path}: {said.decode('utf-8', 'replace').strip()}")

    def close(self) -> None:
        """Remove it with all that runs in it. Idempotent; what fails here is swept at the next start."""
        if self._keeper is not None:
            self._keeper.close()
        with contextlib.suppress(NotFound):
            try:
                self._api.remove_container(self.id, force=True, v=True)
            except APIError as error:
                if error.status_code != 409:  # it is being removed already
                    log.warning("container %s is left over: %s", self.id[:12], error)

    def _kept(self) -> Keeper:
        assert self._keeper is not None
        return self._keeper

    def _watch(
        self,
        started: _Started,
        keeper: Keeper,
        lines: _Said,
        deadline: float | None,
        cancel: threading.Event,
    ) -> tuple[Reason, Counts]:
        """Follow a command to its end; why it ended, and what the kernel counted by then."""
        reason: Reason = "exited"
        looked = time.monotonic()
        while not started.ended:
            lines.feed(started.receive(_TICK_S))
            now = time.monotonic()
            if cancel.is_set():
                reason = "canceled"
                break
            if deadline is not None and now >= deadline:
                reason = "timeout"
                break
            if now - looked >= _LOOK_S:
                looked = now
                counts = keeper.look()
                # The kernel ends one process; the rest may wait for it for ever. And what a command leaves
                # behind holds its output open, though the command itself is over.
                if counts.killed > self._killed or not started.runs():
                    break
        counts, last = keeper.end(self._owner)
        lines.feed(last)
        until = time.monotonic() + _DRAIN_S
        while not started.ended and time.monotonic() < until:
            lines.feed(started.receive(_TICK_S))
        return reason, counts


class _Started(Protocol):
    """A command that was started."""

    @property
    def ended(self) -> bool:
        """Nothing more will be received."""
        ...

    def receive(self, timeout_s: float) -> bytes:
        """What it has printed; b"" when nothing has come in time."""
        ...

    def runs(self) -> bool:
        """Whether the command itself is not over yet; asked after a look at the container."""
        ...

    def code(self) -> int | None: ...

    def close(self) -> None: ...


class _ByKeeper:
    """Started by the container's keeper, which tells when it is over and ends its output."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    @property
    def ended(self) -> bool:
        return self._keeper.over or self._keeper.gone

    def receive(self, timeout_s: float) -> bytes:
        return self._keeper.receive(timeout_s)

    def runs(self) -> bool:
        return not self._keeper.over

    def code(self) -> int | None:
        # Who would have told was ended with it.
        code = self._keeper.exit_code
        return _KILLED if code is None else code

    def close(self) -> None:
        """Nothing is its own."""


class _ByExec:
    """Started by the Docker engine: as any user, with any environment."""

    def __init__(
        self,
        api: docker.APIClient,
        container: str,
        cmd: Sequence[str],
        stdin: bytes,
        env: Mapping[str, str],
        user: str,
        terminal: Terminal | None = None,
    ) -> None:
        self._api = api
        tty = terminal is not None
        self._id: str = api.exec_create(
            container, list(cmd), stdin=True, tty=tty, environment=dict(env), user=user, workdir=None
        )["Id"]
        raw = api.exec_start(self._id, socket=True, tty=tty)
        self._stream = Stream(raw) if terminal is None else TerminalStream(raw, terminal, self._resize)
        self._stream.send(stdin, last=terminal is None)

    @property
    def ended(self) -> bool:
        return self._stream.ended

    def receive(self, timeout_s: float) -> bytes:
        return self._stream.receive(timeout_s)

    def _resize(self, rows: int, columns: int) -> None:
        with contextlib.suppress(APIError):  # it has just ended
            self._api.exec_resize(self._id, rows, columns)

    def runs(self) -> bool:
        return bool(self._api.exec_inspect(self._id)["Running"])

    def code(self) -> int | None:
        """Comes a moment after the last output."""
        until = time.monotonic() + _DRAIN_S
        pause = 0.001
        while True:
            found: dict[str, Any] = self._api.exec_inspect(self._id)
            if not found["Running"] or time.monotonic() > until:
                code: int | None = found["ExitCode"]
                return code
            time.sleep(pause)
            pause = min(2 * pause, 0.05)

    def close(self) -> None:
        self._stream.close()


class _Said:
    """What a command prints, on its way into the log; or the engine in its place, if it cannot be started."""

    def __init__(self, path: Path, program: str) -> None:
        self._log = Log(str(path))
        self._program = program
        self._begun = False
        self.refused = ""

    def feed(self, data: bytes) -> None:
        if data and not self._begun:
            self._begun = True
            text = data.decode("utf-8", "replace")
            if (found := _REFUSED.match(text)) and self._program in found[1]:
                # As it reads in every runtime; engines differ in the code that they give for it.
                self.refused = found[1]
                data = f"kaos: cannot run {found[1]}\n".encode()
        self._log.feed(data)

    def close(self) -> None:
        self._log.close()


def _host_config(api: docker.APIClient, shape: Shape, pfs: Pfs, network: str) -> dict[str, Any]:
    mounts = [_mount("/pfs", pfs.root, read_only=True), _mount("/pfs/out", pfs.out, read_only=False)]
    mounts += [_mount(f"/pfs/{name}", folder, read_only=True) for name, folder in shape.inputs]
    # In the container's memory: `fill` puts them there, and no disk of the host ever has them.
    mounts += [
        Mount(path, None, type="tmpfs", tmpfs_size=_SECRETS_BYTES, tmpfs_mode=0o755) for path in shape.secrets
    ]
    # Docker refuses more cores than there are, which somebody may have told kaos to share out all the same.
    cores = min(max(shape.cpu, _CPU_MIN), os.cpu_count() or shape.cpu)
    limits: dict[str, Any] = {"nano_cpus": int(cores * 1e9)}
    # As a tmpfs without a size of its own has it; Docker's 64 MiB are too few for the loaders of PyTorch.
    limits["shm_size"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    if shape.memory_bytes is not None:
        memory = max(shape.memory_bytes, _MEMORY_MIN)
        limits |= {"mem_limit": memory, "memswap_limit": memory, "shm_size": memory}
    if shape.gpus:
        limits["device_requests"] = [DeviceRequest(device_ids=list(shape.gpus), capabilities=[["gpu"]])]
    config: dict[str, Any] = api.create_host_config(
        mounts=mounts,
        init=True,
        auto_remove=True,
        network_mode=network,
        security_opt=["no-new-privileges"],
        oom_score_adj=_OOM_SCORE_ADJ,
        log_config=LogConfig(type="none"),
        **limits,
    )
    return config


def _mount(target: str, folder: Path, *, read_only: bool) -> Mount:
    # Docker takes no source with links in it for granted.
    return Mount(target, str(folder.resolve()), type="bind", read_only=read_only)
