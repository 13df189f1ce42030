"""Finds an interpreter on this machine for the Python version that a Dockerfile asks for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kaos_pipelines.build.errors import USE_DOCKER, Refused

ASK = (
    "import sys, json; json.dump({'version': '%d.%d.%d' % sys.version_info[:3], 'prefixes': "
    "sorted({sys.base_prefix, sys.base_exec_prefix}), 'path': getattr(sys, '_base_executable', "
    "sys.executable), 'venv': __import__('importlib.util').util.find_spec('venv') is not None}, sys.stdout)"
)
FOLDERS = (
    "/usr/local/bin",
    "/usr/bin",
    "/opt/homebrew/bin",
    "~/.local/bin",
    "~/.pyenv/versions/*/bin",
    "~/.local/share/uv/python/*/bin",
    "/opt/python/*/bin",
    "/opt/python*/bin",
)


@dataclass(frozen=True, slots=True)
class Python:
    """An installed interpreter (not a virtual environment's)."""

    path: str
    version: str
    prefixes: tuple[str, ...]

    @property
    def short(self) -> str:
        return ".".join(self.version.split(".")[:2])


def find_python(wanted: str, candidates: Iterable[str] | None = None) -> Python:
    """The interpreter for "3.11", "3.11.7" or "" (any). The one that runs this comes first.

    Another patch release of the same minor version is accepted where the exact one is missing. Raises
    Refused.
    """
    fallback: Python | None = None
    seen: set[str] = set()
    for name in candidates if candidates is not None else _candidates(wanted):
        found = _ask(name)
        if found is None or found.path in seen:
            continue
        seen.add(found.path)
        if wanted in ("", found.short, found.version):
            return found
        if wanted.startswith(found.short + ".") and fallback is None:
            fallback = found
    if fallback is not None:
        return fallback
    raise Refused(
        f"this machine has no Python {wanted}; install it (pyenv install {wanted}, or a system package), "
        f"change FROM to a version that is here, or {USE_DOCKER}"
    )


def _candidates(wanted: str) -> Iterator[str]:
    yield sys.executable
    minor = ".".join(wanted.split(".")[:2])
    names = [f"python{minor}", "python3", "python"] if minor else ["python3", "python"]
    pinned = os.environ.get("KAOS_PYTHON")
    if pinned:
        yield pinned
    for name in names:
        on_path = shutil.which(name)
        if on_path:
            yield on_path
    home = str(Path.home())
    for pattern in FOLDERS:
        folder = Path(pattern.replace("~", home))
        root, _, rest = str(folder).partition("*")
        if not rest:
            folders: list[Path] = [folder]
        else:
            base, stem = Path(root).parent if not root.endswith("/") else Path(root), Path(root).name
            stem = "" if root.endswith("/") else stem
            folders = sorted(base.glob(f"{stem}*{rest}"), reverse=True)
        yield from (str(f / name) for f in folders for name in names[:1] if (f / name).exists())


def _ask(name: str) -> Python | None:
    try:
        done = subprocess.run([name, "-I", "-S", "-c", ASK], capture_output=True, timeout=20, check=False)
        answer = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None  # a shim without a version behind it, a broken installation
    if answer is None or not answer["venv"]:
        return None
    return Python(answer["path"], answer["version"], tuple(answer["prefixes"]))
