"""From an input tree and the files it matches to datums, their ids and hashes. Pure.

Reference: pachyderm-api.md 11.2 (enumeration) and 11.3 (identity).
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from msgspec import Struct

from kaos_backend.engine.jobs.spec.inputs import leaf
from kaos_backend.engine.jobs.spec.spec import Input, PfsInput


class File(Struct, frozen=True, array_like=True, gc=False):
    """One matched path of one input. Directory paths end in ``/``; `size_bytes` is its total size."""

    name: str
    project: str
    repo: str
    branch: str
    commit: str
    path: str
    hash: bytes
    size_bytes: int
    join_on: str = ""
    outer_join: bool = False
    group_by: str = ""
    empty_files: bool = False
    reference: bool = False
    # Last, so that rows written before it was there can be read.
    repo_type: str = "user"

    @property
    def is_dir(self) -> bool:
        return self.path.endswith("/")

    @property
    def names(self) -> set[str]:
        """What a data filter may call it: its path, or its hash in hex or base64."""
        return {self.path, self.path.rstrip("/"), self.hash.hex(), base64.b64encode(self.hash).decode()}


class Match(Struct, frozen=True):
    """What a lister says of one path a glob matched; `captures` are the glob's groups from 1 on."""

    path: str
    hash: bytes
    size_bytes: int
    captures: tuple[str, ...] = ()


class Datum(Struct, frozen=True):
    """`id` and `hash` are 64 hex digits; `files` in input order."""

    id: str
    hash: str
    files: tuple[File, ...]


Tuple = tuple[File, ...]
# A pfs input → (its commit id, what its glob matches there).
Lister = Callable[[PfsInput], tuple[str, Iterable[Match]]]

_REPLACEMENT = re.compile(r"\$(?:(\d+)|\{(\d+)\}|(\$))")


def expand(template: str, whole: str, captures: tuple[str, ...]) -> str:
    """`$1`, `${1}`, `$0` (whole path) and `$$` in `template`; a group that does not exist is empty."""

    def one(found: re.Match[str]) -> str:
        if found[3]:
            return "$"
        number = int(found[1] or found[2])
        if number == 0:
            return whole
        return captures[number - 1] if number <= len(captures) else ""

    return _REPLACEMENT.sub(one, template)


def datum_id(files: Tuple) -> str:
    """Hex BLAKE2b-256 over (name, repo, branch, path) of each file; stable over commits."""
    named = [_named(file.name, file.repo, file.branch) + _told(file.path) for file in files]
    return hashlib.blake2b(b"".join(named), digest_size=32).hexdigest()


@lru_cache(64)
def _named(*texts: str) -> bytes:
    # The same for all files of an input.
    return b"".join(map(_told, texts))


def _told(text: str) -> bytes:
    raw = text.encode()
    return raw + len(raw).to_bytes(8, "big")


def datum_hash(id: str, files: Tuple, salt: str) -> str:
    """Hex BLAKE2b-256 over the id, the content of each non-reference file, and the pipeline's salt."""
    contents = [file.hash for file in files if not file.reference]
    return hashlib.blake2b(b"".join([id.encode(), *contents, salt.encode()]), digest_size=32).hexdigest()


def plan(node: Input, lister: Lister, salt: str) -> list[Datum]:
    """The datums of a completed input tree, ordered by id; each id once."""
    found: dict[str, Datum] = {}
    for files in _tuples(node, lister):
        id = datum_id(files)
        found.setdefault(id, Datum(id, datum_hash(id, files, salt), files))
    return [found[id] for id in sorted(found)]


def _tuples(node: Input, lister: Lister) -> list[Tuple]:
    if (pfs := leaf(node)) is not None:
        return [(file,) for file in _files(pfs, lister)]
    if node.cross:
        sides = [_tuples(child, lister) for child in node.cross]
        return [tuple(itertools.chain(*parts)) for parts in itertools.product(*sides)]
    if node.union:
        return list(dict.fromkeys(t for child in node.union for t in _tuples(child, lister)))
    if node.join:
        return _join([_by_key(_tuples(child, lister), "join_on") for child in node.join])
    if node.group:
        return _group([_by_key(_tuples(child, lister), "group_by") for child in node.group])
    return []


def _files(pfs: PfsInput, lister: Lister) -> list[File]:
    commit, matches = lister(pfs)
    files = []
    for match in matches:
        whole = match.path.rstrip("/") or "/"
        files.append(
            File(
                name=pfs.name,
                project=pfs.project,
                repo=pfs.repo,
                branch=pfs.branch,
                commit=commit,
                path=match.path,
                hash=match.hash,
                size_bytes=match.size_bytes,
                join_on=expand(pfs.join_on, whole, match.captures),
                outer_join=pfs.outer_join,
                group_by=expand(pfs.group_by, whole, match.captures),
                empty_files=pfs.empty_files,
                reference=pfs.reference,
                repo_type=pfs.repo_type,
            )
        )
    return files


def _by_key(tuples: list[Tuple], attribute: str) -> Mapping[str, list[Tuple]]:
    keyed: dict[str, list[Tuple]] = {}
    for files in tuples:
        key = next((k for k in (getattr(file, attribute) for file in files) if k), "")
        keyed.setdefault(key, []).append(files)
    return keyed


def _join(sides: list[Mapping[str, list[Tuple]]]) -> list[Tuple]:
    """Inner join per key; where a side is missing, only outer members stay."""
    out: list[Tuple] = []
    for key in sorted({key for side in sides for key in side}):
        present = [side[key] for side in sides if key in side]
        if len(present) < len(sides):
            present = [[t for t in side if all(f.outer_join for f in t)] for side in present]
            present = [side for side in present if side]
            if not present:
                continue
        out += [tuple(itertools.chain(*parts)) for parts in itertools.product(*present)]
    return out


def _group(sides: list[Mapping[str, list[Tuple]]]) -> list[Tuple]:
    """One datum per key, with every match of every side."""
    keys = sorted({key for side in sides for key in side})
    return [tuple(f for side in sides for files in side.get(key, ()) for f in files) for key in keys]
