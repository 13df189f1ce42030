"""Builds with BuildKit, which a Docker engine offers through its client program alone.

Reads the client's plain progress (`--progress plain`): `#<vertex> [<stage> 3/7] RUN …` begins a step,
`#<vertex> 1.234 text` is a line of it, `#<vertex> ERROR: …` its end.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from kaos_formats.build_secrets import variable
from kaos_pipelines.build import authorities
from kaos_pipelines.build.bundle import Bundle
from kaos_pipelines.build.errors import BuildError
from kaos_pipelines.build.instructions import Failures, Written, amended
from kaos_pipelines.build.log import BuildLog
from kaos_pipelines.build.order import Order

_LINE = re.compile(r"#(\d+) (.*)")
_STEP = re.compile(r"\[(?:(\S+) )?(\d+)/(\d+)\] (.*)")
_SAID = re.compile(r"\d+\.\d+ ?(.*)")
_EXIT_CODE = re.compile(r"exit code: (\d+)")
_VERSION = re.compile(r"Docker version (\d+)\.")
# The client could do without the plugin until it moved out of it.
_BUILT_IN = 23
# Below /dev, which is none of the image's: a mount elsewhere would leave the folder that it stands in.
_CA, _APT = "/dev/kaos/ca.pem", "/dev/kaos/apt.conf"
_MOUNT = "--mount=type=secret,id=kaos-{},target={},mode=0444,required=true"
_TRUST = f"{_MOUNT.format('ca', _CA)} {_MOUNT.format('apt', _APT)}"


def client(env: Mapping[str, str]) -> str | None:
    """The first client program on the PATH that can use BuildKit."""
    folders = (env.get("PATH") or os.defpath).split(os.pathsep)
    programs = dict.fromkeys(filter(None, (shutil.which("docker", path=folder) for folder in folders)))
    return next((program for program in programs if _can(program, env)), None)


def search(env: Mapping[str, str]) -> Callable[[], str | None]:
    """Begin to look for the `client`, in a thread; what is returned waits for what was found."""
    found: list[str | None] = []
    thread = threading.Thread(target=lambda: found.append(client(env)), daemon=True)
    thread.start()

    def result() -> str | None:
        thread.join()
        return found[0] if found else None

    return result


def _can(program: str, env: Mapping[str, str]) -> bool:
    try:
        # Unlike `docker version`, this asks no engine.
        said = subprocess.run([program, "--version"], env=env, capture_output=True, text=True).stdout
        version = _VERSION.match(said)
        if version is not None and int(version[1]) < _BUILT_IN:
            return True
        return subprocess.run([program, "buildx", "version"], env=env, capture_output=True).returncode == 0
    except OSError:
        return False


def carry_out(program: str, order: Order, env: Mapping[str, str], log: BuildLog) -> str:
    """The id of the image, which has no name yet. Raises BuildError."""
    with tempfile.TemporaryDirectory(prefix="kaos-build-") as folder:
        context, dockerfile, made = (Path(folder) / name for name in ("context", "Dockerfile", "id"))
        _lay_out(order.bundle, context)
        text, options = order.bundle.dockerfile, list(_options(order))
        if order.authorities is not None:
            names = authorities.variables(_CA) | {"APT_CONFIG": _APT}
            text = amended(text, [f"ARG {name}={value}" for name, value in names.items()], _TRUST)
            for name, content in (
                ("ca", order.authorities),
                ("apt", authorities.apt_configuration(_CA)),
            ):
                (file := Path(folder) / name).write_text(content, "utf-8")
                options.append(f"--secret=id=kaos-{name},src={file}")
        dockerfile.write_text(text, "utf-8")
        command = [program, "build", "--progress", "plain", "-f", str(dockerfile), "--iidfile", str(made)]
        with subprocess.Popen(
            [*command, *options, str(context)],
            env={**env, **order.proxies, "DOCKER_BUILDKIT": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            assert process.stdout is not None
            follow(process.stdout, order.steps, log)
        if process.returncode or not made.exists():
            raise BuildError(f"docker build ended with exit code {process.returncode}, see its log")
        return made.read_text().strip()


def _options(order: Order) -> Iterator[str]:
    yield from (f"--label={name}={value}" for name, value in order.labels.items())
    yield from (f"--build-arg={name}={value}" for name, value in order.arguments.items())
    # By name alone: other users of the machine see a command line.
    yield from (f"--build-arg={name}" for name in order.proxies)
    # As variables, which other users of the machine do not see: no file is left by a build that is killed.
    yield from (f"--secret=id={name},env={variable(name)}" for name in order.secrets)
    if order.network:
        yield f"--network={order.network}"


def follow(lines: Iterable[str], steps: Sequence[Written], log: BuildLog) -> None:
    """Tell the log what the client prints, in the words of a classic build. Raises BuildError at a step's."""
    failures = Failures(steps, log)
    last: dict[str, deque[str]] = {}
    names: dict[str, str] = {}
    begun: set[str] = set()
    other: deque[str] = deque(maxlen=Failures.LINES)
    for raw in lines:
        found = _LINE.match(raw.rstrip("\n"))
        if found is None:
            other.append(raw.strip())
            continue
        vertex, text = found[1], found[2].replace(f"{_TRUST} ", "")
        if step := _STEP.match(text):
            names[vertex] = step[4]
            if vertex not in begun:
                begun.add(vertex)
                log.say(f"Step {step[2]}/{step[3]} : {step[4]}")
        elif text.startswith("ERROR: "):
            if vertex in names:
                code = _EXIT_CODE.search(text)
                raise failures.at(names[vertex], text[7:], code[1] if code else None, last.get(vertex, ()))
            other.append(text[7:])
        elif text == "CACHED":
            log.say(" ---> Using cache")
        elif said := _SAID.fullmatch(text):
            last.setdefault(vertex, deque(maxlen=Failures.LINES)).append(said[1])
            log.say(said[1])
    if told := [line for line in other if line.startswith(("error: ", "ERROR: ", "failed to "))]:
        raise BuildError(told[-1].removeprefix("ERROR: ").removeprefix("error: "))


def _lay_out(bundle: Bundle, folder: Path) -> None:
    """The context as a folder, with the modes that the bundle says."""
    folder.mkdir()
    for path, file in bundle.context.files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.source, target)
        target.chmod(file.mode)
        # Layers are the same for the same bundle.
        os.utime(target, (0, 0))
