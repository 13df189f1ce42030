"""Carries out what fills an environment: how pip, uv and Poetry are called for it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from packaging.specifiers import SpecifierSet

from kaos_formats.conda import Environment, read_environment, read_packages
from kaos_formats.errors import InvalidBundle
from kaos_pipelines.build.errors import Refused
from kaos_pipelines.build.pip import Argument, PipCommand
from kaos_pipelines.build.pythons import Python
from kaos_pipelines.build.rootfs import RootFs
from kaos_pipelines.build.venvs import PRIVATE

PIP_FLAGS = ("--no-input", "--disable-pip-version-check", "--no-warn-script-location", "--progress-bar=off")
# Settings that would put packages elsewhere, or that make sense for the size of image layers only.
MISPLACING = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_PYTHON", "PIP_LOG", "PIP_NO_CACHE_DIR")
PIP_ERROR = "ERROR: "
# The last of pip's errors says what it comes down to, but for this one.
PIP_ADVICE = "ResolutionImpossible"
MAX_REASON = 300


def install(venv: Path, python: Python, command: PipCommand, fs: RootFs, say: Callable[[str], None]) -> None:
    """Run pip, uv or Poetry for one step. All of their own configuration applies: this process's environment
    is passed on.

    Raises Refused when it fails, with the line in which it said why; its output has gone to `say` by then.
    """
    words = command_line(command, venv, python, fs, pip_of(venv, python), sees_host=True)
    env = {name: value for name, value in os.environ.items() if name not in PRIVATE}
    env = {name: value for name, value in env.items() if not name.startswith(("KAOS_", "PACH_"))}
    env = {name: value for name, value in (env | dict(command.env)).items() if name not in MISPLACING}
    env["PATH"] = f"{venv / 'bin'}:{os.environ.get('PATH', os.defpath)}"
    env |= settings(venv)
    cwd = fs.resolve(command.cwd)
    errors = []
    with subprocess.Popen(
        words,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            say(line.removesuffix("\n"))
            if line.startswith(PIP_ERROR) and PIP_ADVICE not in line:
                errors.append(line.removeprefix(PIP_ERROR).strip()[:MAX_REASON])
    if pip.returncode != 0:
        why = errors[-1] if errors else "see what it said in the build's log"
        raise Refused(f"{command.program}: {why} (exit code {pip.returncode})")


def command_line(
    command: PipCommand, venv: Path, python: Python, fs: RootFs, pip: Sequence[str], *, sees_host: bool
) -> list[str]:
    """The words to run. `sees_host`: by whom files are named by their paths on the host, not in the image.

    Raises Refused for a program that is not there, and for an environment.yml that pip cannot satisfy.
    """
    program, *verb = command.verb.split()
    if command.program == "pip":
        words = [*pip, command.verb, *(PIP_FLAGS if command.verb == "install" else ())]
    else:
        words = [installer(program, venv, sees_host=sees_host), *verb]
        words += ["--no-interaction"] if program == "poetry" else []
        # As uv itself may be in the environment too.
        words += ["--inexact"] if command.verb == "uv sync" and "--inexact" not in command.text else []
    for argument in command.arguments:
        if argument.kind == "conda":
            words += _of_conda(argument, command.cwd, python, fs)
        else:
            path = argument.path
            words += argument.words(str(fs.resolve(path, command.cwd)) if path and sees_host else path)
    return words


def installer(program: str, venv: Path, *, sees_host: bool) -> str:
    """uv or Poetry: the environment's own, or this machine's, which for Poetry takes more than the program.

    Raises Refused where there is neither.
    """
    own = venv / "bin" / program
    found = str(own) if own.exists() else shutil.which(program) if sees_host or program == "uv" else None
    if found is None:
        raise Refused(f"{program} is not in the image; add RUN pip install {program}")
    return found


def settings(venv: Path) -> dict[str, str]:
    """What makes every installer fill the environment in the folder `venv`, and no other."""
    return {
        "VIRTUAL_ENV": str(venv),
        "UV_PROJECT_ENVIRONMENT": str(venv),
        "UV_PYTHON": str(venv / "bin" / "python"),
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_LINK_MODE": "copy",
        "UV_NO_PROGRESS": "1",
        "POETRY_VIRTUALENVS_CREATE": "false",
    }


def _of_conda(argument: Argument, cwd: str, python: Python, fs: RootFs) -> Iterator[str]:
    try:
        found = _environment(argument, cwd, fs)
    except InvalidBundle as error:
        raise Refused(f"{error}{f'; {error.hint}' if error.hint else ''}") from error
    if found.python and python.version not in SpecifierSet(found.python):
        raise Refused(
            f"{argument.text} asks for Python {found.python}, and this is {python.version}; "
            "write FROM python: with a version that it allows"
        )
    yield from found.requirements


def _environment(argument: Argument, cwd: str, fs: RootFs) -> Environment:
    if argument.path is None:
        return read_packages(argument.text.split("\n"))
    return read_environment(fs.resolve(argument.path, cwd).read_text("utf-8", "replace"))


def pip_of(venv: Path, python: Python) -> Sequence[str]:
    """How to run pip for the environment. One pip for all is seconds faster than giving each its own
    (ensurepip).
    """
    interpreter = str(venv / "bin" / "python")
    if (venv / "bin" / "pip").exists():  # a Dockerfile that upgrades pip means to use what it installed
        return [interpreter, "-m", "pip"]
    if importlib.util.find_spec("pip") is not None and tuple(map(int, python.version.split(".")[:2])) >= (
        3,
        9,
    ):
        return [sys.executable, "-m", "pip", "--python", interpreter]
    words = [interpreter, "-I", "-m", "ensurepip", "--default-pip"]
    done = subprocess.run(words, capture_output=True, check=False)
    if done.returncode != 0:
        raise Refused(f"{python.path} has no pip: {done.stderr.decode('utf-8', 'replace').strip()[-300:]}")
    return [interpreter, "-m", "pip"]
