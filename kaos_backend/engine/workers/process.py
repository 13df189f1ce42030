"""The process runtime: workers are processes of this machine, in a bubblewrap sandbox where that works.

One `launcher.py` per worker does the forking, limiting and log writing; this module tells it what to run.
Whatever happens to a launcher, its datum ends: it kills the tree when the engine's end of the pipe closes,
the kernel kills the command when the launcher dies, and `run` sweeps what a killed launcher left.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kaos_backend.engine.errors import Unknown
from kaos_backend.engine.workers import environment, sandbox
from kaos_backend.engine.workers.images import BUILDER, Image, ImageStore
from kaos_backend.engine.workers.port import DatumRun, Exit, WorkerSpec

LAUNCHER = Path(__file__).with_name("launcher.py")
CANCEL_LATENCY_S = 0.05
CLOSE_S = 5.0
NOT_ISOLATED = (
    "code sees and may change what this user may: only file modes protect inputs and other trials",
    "/pfs does not exist: code finds its files by environment variables ($KAOS_DATA_DIR, $PACH_PFS, …)",
    "absolute image paths such as /app do not exist: code starts in WORKDIR and must stay relative",
)
ALWAYS_SHARED = (
    "the network is the host's",
    "USER of the Dockerfile is ignored: code runs as the engine's user",
)
FOREIGN = "kaos: image {} is of a registry; the process runtime uses this machine's own programs in its place"


class ProcessRuntime:
    """Runs datums as processes.

    Args:
        engine_dir: holds images/ and venvs/ (read) and scratch/workers/ (written; emptied at start).
        home: KAOS_HOME, kept out of every sandbox.
        isolate: None = sandbox if bubblewrap works here; False = never; True = raise EngineError if it does
        not.
    """

    name = "process"

    def __init__(self, engine_dir: Path, home: Path | None = None, isolate: bool | None = None) -> None:
        self._engine_dir = engine_dir.absolute()
        self._hidden = tuple({self._engine_dir, (home or engine_dir).absolute()})
        self._store = ImageStore(self._engine_dir)
        self._scratch = self._engine_dir / "scratch" / "workers"
        _remove(self._scratch)
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._bwrap, self._shm, why = _find_bwrap() if isolate is not False else (None, False, "switched off")
        if isolate and self._bwrap is None:
            raise Unknown(f"isolation was asked for, but {why}")
        self.isolation = "bubblewrap" if self._bwrap else "none"
        self.notes: tuple[str, ...] = ALWAYS_SHARED
        if not self._bwrap:
            self.notes = (f"no sandbox: {why}; install bubblewrap for one", *NOT_ISOLATED, *ALWAYS_SHARED)

    def image_ready(self, image: str) -> bool:
        """Whether `start_worker` would find the image now."""
        return self._store.ready(image)

    def start_worker(self, spec: WorkerSpec) -> ProcessWorker:
        """Start a worker with a private copy of the image's files.

        Raises EngineError when the image is missing or broken, or when the files cannot be written.
        """
        image = self._store.get(spec.image)
        folder = self._scratch / uuid.uuid4().hex
        try:
            return ProcessWorker(spec, image, folder, self._engine_dir, self._hidden, self._bwrap, self._shm)
        except (OSError, shutil.Error) as error:
            _remove(folder)
            raise Unknown(f"cannot start a worker of image {spec.image}: {error}") from error


class ProcessWorker:
    """One worker slot: a folder, a launcher and the image's files. One datum at a time."""

    def __init__(
        self,
        spec: WorkerSpec,
        image: Image,
        folder: Path,
        engine_dir: Path,
        hidden: tuple[Path, ...],
        bwrap: str | None,
        shm: bool,
    ) -> None:
        self._spec, self._image, self._folder, self._hidden = spec, image, folder, hidden
        self._is_builder = image.name == BUILDER
        self._bwrap = None if self._is_builder else bwrap
        self._shm = shm
        self._root = folder / "root"
        self._workdir = spec.working_dir or image.workdir
        self._binds: tuple[str, ...] = ()
        self._lay_out()
        for path in (folder / "pfs", folder / "home"):
            path.mkdir()
        self._env = self._container_env(engine_dir)
        self._devices = sandbox.gpu_devices() if self._bwrap else ()
        self._lock = threading.Lock()
        self._closed = False
        self._launcher: subprocess.Popen[bytes] | None = None
        self._replies = b""
        self._start_launcher()

    def run(self, run: DatumRun, cancel: threading.Event) -> Exit:
        """Run one datum; see `port.Worker`. After a launcher's death the next run starts another."""
        started = time.monotonic()
        if self._closed:
            return _failed("the worker was closed", started)
        if cancel.is_set():
            return Exit(None, None, "canceled", "", 0, 0.0)
        try:
            if self._launcher is None or self._launcher.poll() is not None:
                self._start_launcher()
            request = self._request(run)
            if self._image.root is None and not self._is_builder:
                _note(run.log, FOREIGN.format(self._image.name or '""'))
            self._send({"run": request})
            return self._await_exit(cancel, started)
        except (OSError, ValueError) as error:
            return _failed(f"the worker cannot run it: {error}", started)

    def close(self) -> None:
        """End the launcher, and with it a running datum; remove the worker's files."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            launcher = self._launcher
        if launcher is not None:
            _end(launcher)
        _remove(self._folder)

    def _lay_out(self) -> None:
        """Make the private root: a fresh copy of the image's files, and what a sandbox mounts over them."""
        if self._image.root is not None:
            shutil.copytree(self._image.root, self._root, symlinks=True)
        self._root.mkdir(parents=True, exist_ok=True)
        if self._bwrap:
            plan = sandbox.layout(sandbox.scan(self._root), sandbox.scan(Path("/")))
            sandbox.prepare(self._root, plan)
            self._binds = plan.binds
        if not self._is_builder:
            _make_folder(self._root, self._workdir)

    def _container_env(self, engine_dir: Path) -> dict[str, str]:
        if self._is_builder:
            found = importlib.util.find_spec("kaos_pipelines")
            if found is None or not found.submodule_search_locations:
                raise OSError("the package kaos_pipelines is not installed beside kaos_backend")
            path = str(Path(found.submodule_search_locations[0]).parent)
            return environment.builder(os.environ, self._spec.env, engine_dir, path)
        home = "/root" if self._bwrap else str(self._folder / "home")
        locate: Callable[[str], str] = self._locate if not self._bwrap else str
        host = dict(os.environ)
        if self._bwrap:
            host["PATH"] = sandbox.visible_path(host.get("PATH", ""))
        env = environment.container(host, self._image, self._spec.env, home, locate)
        if not self._bwrap:
            tmp = self._root / "tmp"
            tmp.mkdir(exist_ok=True)
            env.setdefault("TMPDIR", str(tmp))
        return env

    def _locate(self, image_path: str) -> str:
        """Where an image path is on the host, if the image has it; else the path itself."""
        inside = self._root / image_path.lstrip("/")
        return (
            str(inside) if image_path.strip("/") and image_path[0] == "/" and inside.exists() else image_path
        )

    def _request(self, run: DatumRun) -> dict[str, Any]:
        common = {
            "stdin": run.stdin.decode("latin-1"),
            "log": str(run.log),
            "cores": list(run.grant.cores),
            "memory": run.grant.memory_bytes,
            "timeout": run.timeout_s,
            "sandboxed": self._bwrap is not None,
        }
        if self._bwrap:
            view = self._view(run)
            if not sandbox.intact(self._root, view.mount_points):
                _remove(self._root)
                self._lay_out()
            command = sandbox.argv(self._bwrap, view, run.cmd)
            return common | {"argv": command, "env": environment.datum(self._env, run, "/pfs"), "cwd": "/"}
        pfs = self._folder / "pfs"
        _link_inputs(pfs, {**run.inputs, "out": run.out})
        env = environment.datum(self._env, run, str(pfs))
        command = list(run.cmd)
        if self._is_builder and command[0] == "python":
            command[0] = sys.executable
        return common | {"argv": command, "env": env, "cwd": str(self._cwd(pfs))}

    def _cwd(self, pfs: Path) -> Path:
        """The working directory without a sandbox; /pfs paths lead to the datum's own /pfs."""
        relative = self._workdir.strip("/")
        if relative == "pfs" or relative.startswith("pfs/"):
            return pfs / relative[4:]
        return self._root / relative

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
            shm_bytes=run.grant.memory_bytes if self._shm else None,
        )

    def _start_launcher(self) -> None:
        with self._lock:
            if self._closed:
                raise OSError("the worker was closed")
            if self._launcher is not None:
                _end(self._launcher)
            self._replies = b""
            self._launcher = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LAUNCHER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )

    def _kill_launcher(self) -> None:
        if self._launcher is not None:
            self._launcher.kill()

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._launcher is None or self._launcher.stdin is None:
            raise OSError("the launcher is gone")
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[self._launcher.stdin.write(data) or 0 :]

    def _await_exit(self, cancel: threading.Event, started: float) -> Exit:
        pid = 0
        canceled = False
        while True:
            reply = self._reply(CANCEL_LATENCY_S if not canceled else CLOSE_S)
            if reply is None:
                if pid:
                    _kill_session(pid)
                if cancel.is_set() or self._closed:
                    return Exit(None, None, "canceled", "", 0, time.monotonic() - started)
                return _failed("the worker's launcher was killed", started)
            if "pid" in reply:
                pid = reply["pid"]
            elif "exit" in reply:
                return _exit(reply["exit"], started)
            elif (
                canceled
            ):  # nothing for seconds after the cancel: a launcher that does not answer is of no use
                self._kill_launcher()
            elif cancel.is_set():
                canceled = True
                self._send({"cancel": True})

    def _reply(self, timeout_s: float) -> dict[str, Any] | None:
        """The launcher's next message; {} when there is none in time, None when the launcher has ended."""
        if self._launcher is None or self._launcher.stdout is None:
            return None
        while b"\n" not in self._replies:
            try:
                poll = select.poll()
                poll.register(self._launcher.stdout, select.POLLIN)
                if not poll.poll(timeout_s * 1000):
                    return {}
                data = self._launcher.stdout.read(65536)
            except ValueError:  # closed by close(), in another thread
                return None
            if not data:
                return None
            self._replies += data
        line, _, self._replies = self._replies.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply


def _exit(reply: Mapping[str, Any], started: float) -> Exit:
    return Exit(
        code=reply.get("code"),
        signal=reply.get("signal"),
        reason=reply["reason"],
        message=reply["message"],
        max_rss_bytes=reply.get("max_rss_bytes", 0),
        wall_s=reply.get("wall_s", time.monotonic() - started),
    )


def _failed(message: str, started: float) -> Exit:
    return Exit(None, None, "error", message, 0, time.monotonic() - started)


def _link_inputs(pfs: Path, targets: Mapping[str, Path]) -> None:
    for old in pfs.iterdir():
        if old.is_symlink() or old.is_file():
            old.unlink()
        else:
            _remove(old)
    for name, target in targets.items():
        (pfs / name).symlink_to(target.absolute())


def _make_folder(root: Path, image_path: str) -> None:
    """WORKDIR, if the image lacks it; links on the way are the image's own business and not followed."""
    folder = root
    for name in image_path.strip("/").split("/"):
        folder = folder / name
        if folder.is_symlink() or name in ("..", "pfs"):
            return
        folder.mkdir(exist_ok=True)


def _note(log: Path, text: str) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{time.time_ns() // 1000} s {text}\n")


def _find_bwrap() -> tuple[str | None, bool, str]:
    """(path or None, can it size a tmpfs, why not)."""
    path = shutil.which("bwrap")
    for shm in (True, False):
        why = sandbox.probe(path, shm)
        if why is None:
            return path, shm, ""
    return None, False, why or ""


def _end(launcher: subprocess.Popen[bytes]) -> None:
    """Close the launcher's stdin, which makes it kill its datum and leave; insist after a while."""
    if launcher.stdin is not None:
        with contextlib.suppress(OSError):
            launcher.stdin.close()
    try:
        launcher.wait(CLOSE_S)
    except subprocess.TimeoutExpired:
        launcher.kill()
        launcher.wait()
    if launcher.stdout is not None:
        launcher.stdout.close()


def _kill_session(session: int) -> None:
    """Kill what a dead launcher's datum left: all processes of the session that the command led."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                if int((entry / "stat").read_bytes().rpartition(b")")[2].split()[3]) == session:
                    os.kill(int(entry.name), signal.SIGKILL)


def _remove(path: Path) -> None:
    """Remove a tree that user code had its hands on: folders may have lost their write permission."""

    def retry(function: Callable[..., Any], name: str, _: Any) -> None:
        with contextlib.suppress(OSError):
            Path(name).parent.chmod(0o700)
            if not Path(name).is_symlink():
                Path(name).chmod(0o700)
            function(name)

    shutil.rmtree(path, onerror=retry)
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
