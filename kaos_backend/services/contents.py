"""Contents that are stored already, with whatever bundle, workspace or upload they came."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple

from kaos_backend import errors
from kaos_backend.domain.models import CopyFile
from kaos_backend.pachd.port import Pachd

# Pachyderm's name of the repo whose "commits" are file sets.
FILE_SETS = "__filesets__"
_AT_A_TIME = 20_000


class Found(NamedTuple):
    """Of contents by their hashes: each that is stored with the file set that has it for the next minutes;
    how many bytes there are of those that broke off within.
    """

    stored: dict[str, str]
    begun: dict[str, int]


def find(pachd: Pachd, sizes: Mapping[str, int]) -> Found:
    """What is there of contents (BLAKE3 in hex → size in bytes). Raises NeedsEmbeddedEngine."""
    found = Found({}, {})
    asked = iter(sizes.items())
    while part := list(islice(asked, _AT_A_TIME)):
        answer = pachd.find({bytes.fromhex(name): size for name, size in part})
        missing = set(answer.missing)
        found.stored.update((name, answer.file_set) for at, (name, _) in enumerate(part) if at not in missing)
        found.begun.update((part[at][0], size) for at, size in answer.begun)
    return found


def can_be_found(pachd: Pachd) -> bool:
    """Whether this pachd knows contents by their hashes: the embedded engine does."""
    try:
        pachd.find({})
    except errors.NeedsEmbeddedEngine:
        return False
    return True


def copy(found: Mapping[str, str], name: str, path: str) -> CopyFile:
    """Puts the content of that name, which was found, at ``path``."""
    return CopyFile(path, FILE_SETS, found[name], f"/{name}")
