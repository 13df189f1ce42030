"""Paths: which ones a bundle may have, and which ones PFS can hold as they are."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kaos_formats.errors import InvalidBundle

GLOB_CHARACTERS = "*?[]{}!()@+^"
"""What Pachyderm's globs are made of: no path in PFS has one of them, nor anything but printable ASCII."""

UNSAFE = re.compile(r"[^\x20-\x7e]|[" + re.escape(GLOB_CHARACTERS) + "]")
_ODD_ELEMENT = re.compile(r"(?:\A|[/\0])\.{0,2}(?:[/\0]|\Z)")
MAX_PATH_BYTES = 1024
MAX_NAME_BYTES = 255
MAX_SHOWN = 5


def path_problem(path: str) -> str | None:
    """Why a bundle cannot have a file at ``path`` (relative, with ``/``); None if it can."""
    if not path:
        return "the path is empty"
    try:
        size = len(path.encode("utf-8"))
    except UnicodeEncodeError:
        return "the name is no UTF-8"
    if size > MAX_PATH_BYTES:
        return f"longer than {MAX_PATH_BYTES} bytes"
    if "\0" in path:
        return "a name cannot hold a NUL"
    for name in path.split("/"):
        if name in (".", ".."):
            return "'.' and '..' are not allowed"
        if not name:
            return "absolute paths, double and trailing slashes are not allowed"
        if len(name) > MAX_NAME_BYTES // 4 and len(name.encode("utf-8")) > MAX_NAME_BYTES:
            return f"a name longer than {MAX_NAME_BYTES} bytes"
    return None


def check_paths(paths: Sequence[str]) -> None:
    """Raises InvalidBundle, which lists the first offenders, unless a bundle can have all of ``paths``."""
    refuse(path_problems(paths))


def path_problems(paths: Sequence[str]) -> list[tuple[str, str]]:
    """Those of ``paths`` that a bundle cannot have, each with what is wrong with it."""
    return [(path, why) for path in _suspects(paths) if (why := path_problem(path)) is not None]


def refuse(problems: Sequence[tuple[str, str]]) -> None:
    """Raises InvalidBundle, which lists the first of them, unless there are none."""
    if not problems:
        return
    listed = "".join(f"\n  {shown(path)}: {why}" for path, why in problems[:MAX_SHOWN])
    more = len(problems) - MAX_SHOWN
    raise InvalidBundle(
        f"{len(problems)} file name(s) that a bundle cannot have:{listed}"
        + (f"\n  and {more} more" if more > 0 else ""),
        hint="rename these files or leave them out with .kaosignore",
        paths=[shown(path) for path, _ in problems[:MAX_SHOWN]],
    )


def _suspects(paths: Sequence[str]) -> Sequence[str]:
    """The paths to look at one by one: looking at all of 100,000 would take longer than listing the files."""
    text = "\0".join(paths)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return paths
    if not text or _ODD_ELEMENT.search(text) or text.count("\0") >= len(paths):
        return paths
    # In UTF-8 a character has at most four bytes.
    long = MAX_NAME_BYTES if text.isascii() else MAX_NAME_BYTES // 4
    return [path for path in paths if len(path) > long]


def shown(path: str) -> str:
    """``path`` for a message: what is not printable, or no UTF-8, by its bytes; not longer than a name."""
    try:
        raw = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raw = path.encode("utf-8", "backslashreplace")
    text = raw.decode("utf-8", "backslashreplace")[:MAX_NAME_BYTES]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
