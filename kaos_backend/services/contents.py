"""Contents that are stored already, with whatever bundle, workspace or upload they came."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from kaos_backend.domain.models import CopyFile
from kaos_backend.pachd.port import Pachd

# Pachyderm's name of the repo whose "commits" are file sets.
FILE_SETS = "__filesets__"
_AT_A_TIME = 20_000


def find(pachd: Pachd, sizes: Mapping[str, int]) -> dict[str, str]:
    """Of contents (BLAKE3 in hex → size in bytes) those that are stored, each with the file set that has it
    for the next minutes. Raises NeedsEmbeddedEngine.
    """
    found: dict[str, str] = {}
    asked = iter(sizes.items())
    while part := list(islice(asked, _AT_A_TIME)):
        answer = pachd.find({bytes.fromhex(name): size for name, size in part})
        missing = set(answer.missing)
        found |= {name: answer.file_set for at, (name, _) in enumerate(part) if at not in missing}
    return found


def copy(found: Mapping[str, str], name: str, path: str) -> CopyFile:
    """Puts the content of that name, which was found, at ``path``."""
    return CopyFile(path, FILE_SETS, found[name], f"/{name}")
