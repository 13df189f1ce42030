"""Which files stay out of a bundle: the defaults, and ``.kaosignore`` in gitignore syntax."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

from kaos_cli.errors import KaosError

IGNORE_FILE = ".kaosignore"

DEFAULT_NAMES = frozenset(
    {
        ".git", ".hg", ".svn", ".bzr",
        "__pycache__", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".nox",
        ".venv", "node_modules", ".DS_Store",
    }
)  # fmt: skip
"""Files and folders of these names are left out, at any depth, unless ``.kaosignore`` says ``!name``."""

Ignored = Callable[[str, bool], bool]
"""(path relative to the bundle's root, is it a folder) → does it stay out."""


def is_virtual_environment(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, "pyvenv.cfg"))  # noqa: PTH110, PTH118 - called for every folder


def read_rules(root: Path) -> str | None:
    """The text of the folder's ``.kaosignore``; None when it has none."""
    path = root / IGNORE_FILE
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise KaosError(
            "invalid_bundle", f"{path} is no UTF-8 text: {error.reason}", hint="save it as UTF-8"
        ) from error
    except OSError as error:
        raise KaosError("invalid_bundle", f"cannot read {path}: {error.strerror}") from error


def matcher(rules: str | None, known: Collection[str] = ()) -> Ignored:
    """The decision for one bundle. ``known`` are paths that these same rules let in before: matching one path
    costs 20 µs and more, which for 20,000 known files is longer than everything else."""
    if rules is None:
        return lambda path, _: path.rpartition("/")[2] in DEFAULT_NAMES
    import pathspec

    try:
        spec = pathspec.GitIgnoreSpec.from_lines([*sorted(DEFAULT_NAMES), *rules.splitlines()])
    except ValueError as error:
        raise KaosError("invalid_bundle", f"{IGNORE_FILE} has a wrong pattern: {error}") from error

    def ignored(path: str, is_folder: bool) -> bool:
        if path == IGNORE_FILE:
            return True
        if path in known:
            return False
        # A name that is no UTF-8 has surrogates here, which not every matcher takes.
        shown = path if path.isascii() else path.encode("utf-8", "replace").decode()
        return bool(spec.match_file(shown + "/" if is_folder else shown))

    return ignored
