"""The Dockerfile for a folder that has a train and says what it needs, but has no Dockerfile.

It becomes a file of the bundle like any other, so that the bundle's id covers it; nothing is written into the
folder. Code comes last in it: a change of code installs nothing.
"""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kaos_formats.conda import read_environment
from kaos_formats.errors import InvalidBundle

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

NAME = "Dockerfile"
# In this order: the first that is there is what counts.
SOURCES = (
    "uv.lock",
    "poetry.lock",
    "pylock.toml",
    "requirements.txt",
    "environment.yml",
    "environment.yaml",
)
NEWEST, OLDEST = 14, 8
Read = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Generated:
    """`made_from` and `python` (3.X, and why that) are for whoever reads the deploy's answer."""

    text: str
    made_from: str
    python: str
    why: str


def generate(names: Collection[str], read: Read) -> Generated | None:
    """The Dockerfile of a folder with these files; None where nothing says what to install.

    Raises InvalidBundle for files that make no sense, and for what cannot be installed this way.
    """
    source = next((name for name in SOURCES if name in names), None)
    if "train" not in names:
        return None
    if source is None:
        if "pyproject.toml" in names:
            raise InvalidBundle(
                "there is a pyproject.toml but neither a lock file nor a Dockerfile",
                hint="make a lock file (uv lock, poetry lock), or write a Dockerfile with pip install .",
            )
        return None
    project = _toml(read, "pyproject.toml") if "pyproject.toml" in names else {}
    if source in ("uv.lock", "poetry.lock") and not project:
        raise InvalidBundle(f"{source} belongs to a pyproject.toml, and there is none beside it")
    python, why = _python(source, names, read, project)
    files = [source]
    first = ""
    text = read(source)
    if source == "uv.lock":
        files = ["pyproject.toml", source]
        first = "ENV UV_PROJECT_ENVIRONMENT=/usr/local\nRUN pip install --no-cache-dir uv\n"
        local = re.search(r'source = \{ (editable|directory|path|virtual) = "(?!\.")', text) is not None
        install = f"uv sync --frozen --no-dev --inexact{'' if local else ' --no-install-project'}"
    elif source == "poetry.lock":
        files = ["pyproject.toml", source]
        first = "ENV POETRY_VIRTUALENVS_CREATE=false\nRUN pip install --no-cache-dir poetry\n"
        local = re.search(r'^type = "(directory|file)"', text, re.MULTILINE) is not None
        install = "poetry install --no-interaction --no-root --only main"
    elif source == "pylock.toml":
        first = "RUN pip install --no-cache-dir uv\n"
        local = "[packages.directory]" in text or re.search(r"^path = ", text, re.MULTILINE) is not None
        install = "uv pip install --system -r pylock.toml"
    elif source == "requirements.txt":
        local = (
            re.search(r"^\s*(-[rcef]|--(req|con|find|edit)|[./]|[^#\s]*/)", text, re.MULTILINE) is not None
        )
        install = "pip install --no-cache-dir -r requirements.txt"
    else:
        wanted = read_environment(text).requirements
        files, local = [], any(one.startswith((".", "/", "-r", "-c", "-e", "-f")) for one in wanted)
        words = (word for one in wanted for word in (shlex.split(one) if one.startswith("-") else [one]))
        install = f"pip install --no-cache-dir {shlex.join(words)}" if wanted else ""
    # The slim images have neither git nor compilers.
    variant = "" if re.search(r'git\+|git = "|= "git"', text) else "-slim"
    lines = [f"# Made by kaos from {source}, for want of a Dockerfile of your own."]
    lines += [f"FROM python:{python}{variant}", "WORKDIR /app", *first.splitlines()]
    lines += ["COPY . ."] if local else [f"COPY {' '.join(files)} ./"] if files else []
    lines += [f"RUN {install}"] if install else []
    lines += [] if local else ["COPY . ."]
    lines += ["ENV PYTHONPATH=/app/src"] if any(name.startswith("src/") for name in names) else []
    return Generated("\n".join(lines) + "\n", source, python, why)


def _python(source: str, names: Collection[str], read: Read, project: dict[str, Any]) -> tuple[str, str]:
    """(3.X, what it was taken from)."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    if ".python-version" in names:
        pinned = re.match(r"\s*(?:cpython-)?(3\.\d+)", read(".python-version"))
        if pinned:
            return pinned[1], ".python-version"
    where, wanted = "pyproject.toml", str(_of(project, "project", "requires-python") or "")
    if source.startswith("environment"):
        where, wanted = source, read_environment(read(source)).python
    elif not wanted:
        wanted = _poetry(str(_of(project, "tool", "poetry", "dependencies", "python") or ""))
    here = sys.version_info.minor
    try:
        allowed = SpecifierSet(wanted)
    except InvalidSpecifier as error:
        raise InvalidBundle(f"{where} asks for Python {wanted!r}, which is no version specifier") from error
    fitting = [minor for minor in range(NEWEST, OLDEST - 1, -1) if _allows(allowed, minor)]
    if not fitting:
        raise InvalidBundle(f"{where} asks for Python {wanted}: there is no such image")
    if here in fitting:
        return f"3.{here}", "as here"
    return f"3.{fitting[0]}", f"for {wanted}"


def _allows(allowed: SpecifierSet, minor: int) -> bool:
    # Of the patch releases, any will do: neither ">=3.12.4" nor "<3.12.4" is a reason against 3.12.
    return any(f"3.{minor}.{patch}" in allowed for patch in (30, 10, 0))


def _poetry(text: str) -> str:
    """Poetry's ^3.10 and ~3.10 as specifiers."""
    if match := re.fullmatch(r"\^3(\.\d+)*", text):
        return f">={match[0][1:]},<4"
    if match := re.fullmatch(r"~(3\.\d+)(\.\d+)?", text):
        return f"=={match[1]}.*"
    if re.fullmatch(r"3(\.\d+)*", text):
        return f"=={text}"
    return "" if text == "*" else text


def _toml(read: Read, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(read(name))
    except tomllib.TOMLDecodeError as error:
        raise InvalidBundle(f"{name} is not TOML: {error}") from error


def _of(table: Any, *path: str) -> Any:
    for name in path:
        table = table.get(name) if isinstance(table, dict) else None
    return table
