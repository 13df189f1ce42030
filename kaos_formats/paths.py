"""Paths: which ones PFS can hold, and which ones a bundle may have."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kaos_formats.errors import InvalidBundle

GLOB_CHARACTERS = "*?[]{}!()@+^"
"""What Pachyderm's globs are made of: no path in PFS has one of them, nor anything but printable ASCII."""

UNSAFE = re.compile(r"[^\x20-\x7e]|[" + re.escape(GLOB_CHARACTERS) + "]")
MAX_PATH_BYTES = 1024
MAX_NAME_BYTES = 255
MAX_SHOWN = 5


def path_problem(path: str) -> str | None:
    """Why a bundle cannot have a file at ``path`` (relative, with ``/``); None if it can."""
    if not path:
        return "the path is empty"
    if found := UNSAFE.search(path):
        if not " " <= found[0] <= "~":
            return "only printable ASCII characters are allowed"
        return f"the character {found[0]!r} is not allowed"
    if len(path) > MAX_PATH_BYTES:
        return f"longer than {MAX_PATH_BYTES} characters"
    for name in path.split("/"):
        if name in (".", ".."):
            return "'.' and '..' are not allowed"
        if not name:
            return "absolute paths, double and trailing slashes are not allowed"
        if len(name) > MAX_NAME_BYTES:
            return f"a name longer than {MAX_NAME_BYTES} characters"
    return None


def check_paths(paths: Sequence[str]) -> None:
    """Raises InvalidBundle, which lists the first offenders, unless a bundle can have all of ``paths``."""
    problems = [(path, why) for path in paths if (why := path_problem(path)) is not None]
    if not problems:
        return
    shown = "".join(f"\n  {path[:MAX_NAME_BYTES]!r}: {why}" for path, why in problems[:MAX_SHOWN])
    more = len(problems) - MAX_SHOWN
    raise InvalidBundle(
        f"{len(problems)} file name(s) that Pachyderm cannot hold:{shown}"
        + (f"\n  and {more} more" if more > 0 else ""),
        hint="rename these files or leave them out with .kaosignore",
        paths=[path for path, _ in problems[:MAX_SHOWN]],
    )
