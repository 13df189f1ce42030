"""Names and addresses: what may be called what, and what a commit text means. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from kaos_backend.engine.errors import InvalidArgument, Unknown
from kaos_backend.engine.ids import is_id
from kaos_backend.engine.store.model import META_REPO, SPEC_REPO, USER_REPO, RepoKey

FILESETS_REPO = "__filesets__"
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 3840
"""Linux takes 4,096 with the final NUL; the rest is for the directory that inputs are laid out in. What an
earlier version took may be longer, and can still be read."""
_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_PROJECT_CHARACTERS = 51
_GLOB_CHARACTERS = frozenset("*?[]{}!()@+^")
_UNSAFE = re.compile(r"[^\x20-\x7e]|[*?\[\]{}!()@+^]")


def check_name(kind: str, name: str) -> None:
    """Refuse a repo, branch, pipeline or project name that Pachyderm refuses.

    Raises:
        Unknown: the name is empty or has other characters than letters, digits, ``_`` and ``-``.
    """
    if not _NAME.fullmatch(name):
        raise Unknown(
            f"{kind} name {name!r} is invalid: only alphanumeric characters, underscores, and dashes are "
            "allowed"
        )


def check_project_name(name: str) -> None:
    check_name("project", name)
    if len(name) > _PROJECT_CHARACTERS:
        raise Unknown(f"project name {name!r} is {len(name)} characters long: at most {_PROJECT_CHARACTERS}")
    if not name[0].isalnum():
        raise Unknown(f"project name {name!r}: project names must start with an alphanumeric character")


def check_repo_key(key: RepoKey) -> None:
    if not key.name:
        raise InvalidArgument("repo name must be specified")
    if key.name == FILESETS_REPO:
        raise Unknown(f"{FILESETS_REPO} is a reserved name")
    check_name("repo", key.name)
    if key.type not in (USER_REPO, SPEC_REPO, META_REPO):
        raise Unknown(f"repo type {key.type!r} is unknown: it is one of user, spec, meta")


def check_branch_name(name: str) -> None:
    check_name("branch", name)
    if is_id(name):
        raise Unknown(f"branch name cannot be a UUID V4 (got {name})")


def clean_path(path: str) -> str:
    """One leading slash, no double ones; a trailing slash, which names a directory, stays.

    Raises:
        Unknown: an element is ``.`` or ``..``, or a character is one that PFS refuses.
    """
    if path.startswith("/") and "//" not in path and "/." not in path and not _UNSAFE.search(path):
        return path
    bad = _UNSAFE.search(path)
    if bad is not None:
        if bad.group() in _GLOB_CHARACTERS:
            raise Unknown(f"path ({path}) invalid: globbing character ({bad.group()}) not allowed in path")
        raise Unknown(f"path ({path!r}) invalid: only printable ASCII characters allowed")
    names = [name for name in path.split("/") if name]
    if "." in names or ".." in names:
        raise Unknown(f"path ({path}) invalid: relative file paths are not allowed")
    end = "/" if path.endswith("/") and names else ""
    return "/" + "/".join(names) + end


def file_path(path: str) -> str:
    """The cleaned path of a file to write: it names something and has no trailing slash.

    Raises:
        Unknown: as `clean_path`, or the path is empty.
        InvalidArgument: it is longer than a file's may be.
    """
    cleaned = new_path(path)
    if cleaned == "/":
        raise Unknown(f"path ({path!r}) invalid: a file needs a name")
    return cleaned[:-1] if cleaned.endswith("/") else cleaned


def file_paths(paths: Sequence[str]) -> list[str]:
    """`file_path` of each, at once where all are clean but for the slash that they do not begin with."""
    text = f"/{'/'.join(paths)}/"
    plain = "//" not in text and "/." not in text and not _UNSAFE.search(text)
    if plain and len(max(paths, key=len)) < MAX_NAME_BYTES:
        return [f"/{path}" for path in paths]
    return [file_path(path) for path in paths]


def new_path(path: str) -> str:
    """`clean_path`, for a path to write to.

    Raises:
        Unknown: as `clean_path`.
        InvalidArgument: it or a name of it is longer than a path on disk may be.
    """
    cleaned = clean_path(path)
    if len(cleaned) <= MAX_NAME_BYTES:
        return cleaned
    name = max(cleaned.split("/"), key=len)
    what, found, limit = "path", cleaned, MAX_PATH_BYTES
    if len(name) > MAX_NAME_BYTES:
        what, found, limit = "name", name, MAX_NAME_BYTES
    if len(found) > limit:
        shown = f"path ({cleaned[:40]}…{cleaned[-20:]}) invalid"
        raise InvalidArgument(f"{shown}: the {what} has {len(found)} characters, at most {limit} are kept")
    return cleaned


class Ancestry(NamedTuple):
    """A parsed commit text.

    Start at `base` (an id, or a branch if not `is_id`), then go `back` steps to parents, or, when `from_root`
    is set, take the commit that many places from the branch's first (1-based).
    """

    base: str
    back: int
    from_root: int | None


_ANCESTRY = re.compile(r"(?P<base>[^.^~]*)(?:(?P<steps>[\^~].*)|\.(?P<root>[0-9]{1,18}))?")


def parse_commit(text: str) -> Ancestry:
    """What an id or branch text with an optional suffix (``^``, ``~3``, ``^^``, ``.2``) means.

    Raises:
        Unknown: a mixed or malformed suffix.
    """
    match = _ANCESTRY.fullmatch(text)
    if match is None:
        raise Unknown(f"invalid ancestry syntax {text!r}")
    base, steps, root = match["base"], match["steps"], match["root"]
    if root is not None:
        if root == "0":
            raise Unknown(f"invalid ancestry syntax {text!r}: numbers from the root start at 1")
        return Ancestry(base, 0, int(root))
    if not steps:
        return Ancestry(base, 0, None)
    mark = steps[0]
    if re.fullmatch(re.escape(mark) + "+", steps):
        return Ancestry(base, len(steps), None)
    if re.fullmatch(re.escape(mark) + "[0-9]{1,18}", steps):
        return Ancestry(base, int(steps[1:]), None)
    raise Unknown(f"invalid ancestry syntax {text!r}")
