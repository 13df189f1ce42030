"""environment.yml as pip can satisfy it: which Python, and which requirements.

Names are those of conda-forge; the few that PyPI has under another name are known here, as are those that no
Python package can stand for. A single = is conda's prefix match, which pip writes ==….*.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kaos_formats.errors import InvalidBundle

NAMES = {
    "dask-core": "dask",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "opencv": "opencv-python-headless",
    "py-opencv": "opencv-python-headless",
    "py-xgboost": "xgboost",
    "pytables": "tables",
    "python-graphviz": "graphviz",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "pytorch-gpu": "torch",
    "pytorch-lightning": "pytorch-lightning",
    "tensorflow-gpu": "tensorflow",
}
# The packages of PyPI bring their own.
BROUGHT = re.compile(r"pip|cpuonly|cuda(toolkit|-.*)?|cudnn|nccl|pytorch-(cuda|mutex)|mkl|blas|openblas|_.*")
NO_PYTHON = re.compile(
    r"(gcc|gxx|gfortran|clang|clangxx)(_.*)?|(c-|cxx-|fortran-)?compilers?|lib.*|r-.*|nodejs|java.*|openjdk|ffmpeg"
    r"|git|git-lfs|make|openssl|zlib|graphviz|perl|go|rust|curl|wget"
)
_SPEC = re.compile(r"(?:[^:\s]+::)?([A-Za-z0-9_][\w.-]*)\s*(.*)")


@dataclass(frozen=True, slots=True)
class Environment:
    """`python`: a version specifier, "" for any; `requirements` as pip reads them."""

    python: str
    requirements: tuple[str, ...]


def read_environment(text: str) -> Environment:
    """Raises InvalidBundle for what is no such file, and for packages that pip cannot install."""
    import yaml

    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise InvalidBundle(f"environment.yml is not YAML: {' '.join(str(error).split())[:200]}") from error
    wanted = found.get("dependencies") if isinstance(found, dict) else None
    if not isinstance(wanted, list):
        raise InvalidBundle("environment.yml has no list of dependencies")
    return read_packages(wanted)


def read_packages(wanted: Sequence[Any]) -> Environment:
    """As `read_environment`, of the list of dependencies alone."""
    python, requirements = "", []
    foreign: list[str] = []
    for item in wanted:
        if isinstance(item, dict):
            requirements += _pip_section(item)
            continue
        match = _SPEC.fullmatch(item.strip()) if isinstance(item, str) else None
        if match is None:
            raise InvalidBundle(f"environment.yml: {item!r} is no package")
        name, version = match[1].lower(), _version(match[2])
        if name == "python":
            python = version
        elif NO_PYTHON.fullmatch(name):
            foreign.append(name)
        elif not BROUGHT.fullmatch(name):
            requirements.append(f"{NAMES.get(name, name)}{version}")
    if foreign:
        raise InvalidBundle(
            f"environment.yml: {', '.join(foreign)}: no Python package, so pip cannot install it",
            hint="write a Dockerfile on a conda image, and use Docker",
        )
    return Environment(python, tuple(requirements))


def _pip_section(item: dict[Any, Any]) -> list[str]:
    lines = item.get("pip")
    if set(item) != {"pip"} or not isinstance(lines, list) or not all(isinstance(x, str) for x in lines):
        raise InvalidBundle("environment.yml: beside packages there can be one list under pip:")
    return [line.strip() for line in lines]


def _version(text: str) -> str:
    """A version of conda's as a specifier of pip's. Builds are left out."""
    text = text.split("[")[0].strip()
    if not text or text == "*":
        return ""
    if match := re.fullmatch(r"=?\s*([^=<>!~,|\s]+)(?:[=\s]\s*\S+)?", text):
        exact = "=" in text.removeprefix("=") or " " in text.strip("= ")
        version = match[1].removesuffix("*").removesuffix(".")
        return f"=={version}" if exact else f"=={version}.*"
    parts = [part.strip().replace(" ", "") for part in text.split(",")]
    known = [re.fullmatch(r"(==|>=|<=|!=|~=|<|>|=)?([\w.*!+-]+)", part) for part in parts]
    if "|" in text or not all(known):
        raise InvalidBundle(f"environment.yml: the version {text} has no counterpart in pip")
    return ",".join(f"=={m[2]}.*" if m and m[1] in (None, "=") else m[0] for m in known if m)
