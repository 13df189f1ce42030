"""A real Docker engine for tests, and a base image made of this machine's own files: nothing is pulled."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import docker
import pytest
from docker.errors import ImageNotFound
from filelock import FileLock

from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.workers.docker.engine import connect
from kaos_formats.folders import clean_up

REPOSITORY = "kaos-tests/base"
REQUIRED = "KAOS_TEST_DOCKER"
PROGRAMS = (
    "awk bash cat chmod chown cp cut date dd df env false find grep head id ln ls mkdir mkfifo mount mv nohup"
    " printf pwd realpath rm sed setsid sh sleep sort stat tail tee touch tr true unshare wc yes"
)
_LEFT_OUT = {"test", "site-packages", "dist-packages", "idlelib", "__pycache__", "ensurepip", "tkinter"}


def engine_or_skip() -> docker.APIClient:
    """A client of the machine's Docker engine; without one the test is skipped, or fails where CI asked."""
    try:
        return connect(os.environ)
    except EngineError as error:
        if os.environ.get(REQUIRED):
            raise
        pytest.skip(error.message)


class Dockerd:
    """A Docker engine of a test's own, which it may kill: `start` begins it, or takes it up again."""

    def __init__(self) -> None:
        if os.geteuid() != 0 or shutil.which("dockerd") is None:
            if os.environ.get(REQUIRED):
                raise AssertionError("no dockerd, or this is not root")
            pytest.skip("a Docker engine of its own needs dockerd and root")
        # Sockets have short names.
        self._folder = Path(tempfile.mkdtemp(prefix="kd"))
        self.host = f"unix://{self._folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> docker.APIClient:
        """A client, once it answers."""
        options = [f"--data-root={self._folder}/data", f"--exec-root={self._folder}/exec"]
        options += [f"--pidfile={self._folder}/pid", f"--host={self.host}"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", *options],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                return connect({"DOCKER_HOST": self.host})
            except EngineError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise AssertionError((self._folder / "log").read_text()[-4000:]) from None
                time.sleep(0.1)

    def kill(self) -> None:
        """`kill -9`; its containers live on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        # Its containerd dies with it; a machine whose init reaps late would make it look alive.
        (self._folder / "exec" / "containerd" / "containerd.pid").unlink()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
        # It leaves mounts behind, each of which every sandbox on this machine would have to step over.
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        left = [mount for mount in mounts if Path(mount).is_relative_to(self._folder)]
        for mount in reversed(left):
            subprocess.run(["umount", "--lazy", mount], check=True)
        clean_up(self._folder)


def base_image(api: docker.APIClient, *, python: bool = True) -> str:
    """The name of an image with a shell, the usual programs and Python; made once per machine.

    Without `python` it is a tenth as large.
    """
    recipe = hashlib.sha256(f"{Path(__file__).read_text()}{sys.version}{python}".encode()).hexdigest()[:12]
    name = f"{REPOSITORY}:{recipe}"
    with FileLock(f"/tmp/kaos-tests-base-{os.getuid()}.lock"):
        try:
            api.inspect_image(name)  # type: ignore[no-untyped-call]
        except ImageNotFound:
            changes = ["ENV PATH=/usr/local/bin:/usr/bin:/bin", 'CMD ["sh"]']
            api.import_image_from_data(_rootfs(python), repository=REPOSITORY, tag=recipe, changes=changes)  # type: ignore[no-untyped-call]
    return name


def add_files(api: docker.APIClient, name: str, base: str, files: Mapping[str, str], config: str) -> None:
    """Make the image `name`: `base` with executable `files`, then the Dockerfile lines of `config`."""
    context = io.BytesIO()
    lines = [f"FROM {base}", *(f'COPY ["{number}", "{path}"]' for number, path in enumerate(files)), config]
    with tarfile.open(fileobj=context, mode="w") as tar:
        for number, text in enumerate(files.values()):
            _add(tar, str(number), text.encode(), 0o755)
        _add(tar, "Dockerfile", "\n".join(lines).encode(), 0o644)
    context.seek(0)
    said = list(api.build(fileobj=context, custom_context=True, tag=name, rm=True, decode=True))
    if errors := [line["error"] for line in said if "error" in line]:
        raise AssertionError(errors)


def _rootfs(python: bool) -> bytes:
    """A tar of the programs and their libraries, and of this Python with its standard library at its own
    path.
    """
    programs = {
        name: Path(os.path.realpath(found)) for name in PROGRAMS.split() if (found := shutil.which(name))
    }
    modules, links = _python() if python else ([], {})
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder, mode in {"tmp": 0o1777, "root": 0o700, "proc": 0o555, "sys": 0o555, "dev": 0o755}.items():
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, mode
            tar.addfile(info)
        for link, target in {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", **links}.items():
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
        _add(tar, "etc/passwd", b"root:x:0:0::/root:/bin/sh\nada:x:1234:1234::/tmp:/bin/sh\n", 0o644)
        _add(tar, "etc/group", b"root:x:0:\nada:x:1234:\n", 0o644)
        for name, path in programs.items():
            _add(tar, f"usr/bin/{name}", path.read_bytes(), 0o755)
        for path in modules:
            _add(tar, str(path), path.read_bytes(), 0o755 if path.name.startswith("python") else 0o644)
        compiled = [path for path in modules if ".so" in path.suffixes or path.name.startswith("python")]
        for library in sorted(_libraries([*programs.values(), *compiled])):
            at = Path(os.path.realpath(library.parent)) / library.name
            _add(tar, str(at), library.read_bytes(), 0o755)
    return out.getvalue()


def _python() -> tuple[list[Path], dict[str, str]]:
    """The files of this Python, its program first, and links to that."""
    program = Path(os.path.realpath(sys.executable))
    stdlib = Path(
        sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix})
    )
    modules = [path for path in stdlib.rglob("*") if path.is_file() and not _LEFT_OUT & set(path.parts)]
    names = ("usr/bin/python3", "usr/local/bin/python3", "usr/local/bin/python")
    return [program, *modules], dict.fromkeys(names, str(program))


def _libraries(binaries: Iterable[Path]) -> set[Path]:
    found: set[Path] = set()
    for binary in binaries:
        said = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False).stdout
        found |= {Path(path) for path in re.findall(r"(/\S+) \(0x", said)}
    return found


def _add(tar: tarfile.TarFile, path: str, content: bytes, mode: int) -> None:
    info = tarfile.TarInfo(path.lstrip("/"))
    info.size, info.mode = len(content), mode
    tar.addfile(info, io.BytesIO(content))
