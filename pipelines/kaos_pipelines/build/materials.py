"""What an installation depends on beside its command line: the content of the files that it reads."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from kaos_pipelines.build.errors import Refused
from kaos_pipelines.build.installers import METADATA, lock_files
from kaos_pipelines.build.pip import Argument, references
from kaos_pipelines.build.rootfs import RootFs

MAX_NESTING = 20


def materials(fs: RootFs, argument: Argument, cwd: str, nesting: int = 0) -> list[list[str]]:
    """[image path, digest] of every file that an argument makes pip read."""
    if argument.path is None:
        return []
    if nesting > MAX_NESTING:
        raise Refused(f"{argument.path} includes itself")
    host = fs.resolve(argument.path, cwd)
    path = fs.image_path(host)
    if argument.kind in ("requirement", "constraint"):
        if not host.is_file():
            raise Refused(f"there is no {path} in the image; COPY it before this line")
        text = host.read_text("utf-8", "replace")
        found = [[path, hashlib.sha256(text.encode()).hexdigest()]]
        folder = path.rpartition("/")[0] or "/"
        for kind, name in references(text):
            lexical = Path(os.path.normpath(host.parent / name))
            if name.startswith("/") or not lexical.is_relative_to(fs.root):
                raise Refused(f"{path} refers to {name}, which is not below the image; use a relative path")
            if fs.resolve(name, folder) != lexical:
                raise Refused(f"{path} refers to {name} through a symbolic link; name the file itself")
            nested = Argument(name, name, kind)
            found += materials(fs, nested, folder if kind != "local" else cwd, nesting + 1)
        return found
    if argument.kind in ("lock", "project"):
        return _of_project(fs, host, whole=argument.kind == "project")
    if host.is_file():
        return [[path, _digest(host)]]
    if not host.is_dir():
        raise Refused(f"there is no {path} in the image; COPY it before this line")
    if argument.kind == "links":
        return [[fs.image_path(file), _digest(file)] for file in sorted(host.iterdir()) if file.is_file()]
    return _below(fs, host)


def _of_project(fs: RootFs, folder: Path, *, whole: bool) -> list[list[str]]:
    """What locked dependencies are read from; if `whole`, also what an editable installation looks at: not
    the code, but where there is any.
    """

    def text_of(name: str) -> str | None:
        file = folder / name
        return file.read_text("utf-8", "replace") if file.is_file() else None

    if text_of("pyproject.toml") is None and not (whole and text_of("setup.py") is not None):
        path = fs.image_path(folder / "pyproject.toml")
        raise Refused(f"there is no {path} in the image; COPY it before this line")
    found: list[list[str]] = []
    for name in (*lock_files(text_of), *(METADATA if whole else ())):
        host = fs.resolve(name, fs.image_path(folder))
        found += [[fs.image_path(host), _digest(host)]] if host.is_file() else _below(fs, host)
    if whole:
        code = {file.parent for file in folder.rglob("*.py") if "__init__" in file.name}
        modules = {file for top in (folder, folder / "src") for file in top.glob("*.py")}
        found += [[fs.image_path(path), ""] for path in sorted(code | modules)]
    return found


def _below(fs: RootFs, folder: Path) -> list[list[str]]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return [[fs.image_path(file), _digest(file)] for file in files]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
