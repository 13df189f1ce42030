"""The true names of models' files: what a trial called them, where PFS holds them under escaped ones."""

from __future__ import annotations

from kaos_backend import errors
from kaos_backend.pachd.port import Pachd
from kaos_backend.services.stream import IteratorSource
from kaos_formats import names
from kaos_formats.stored import MAP_FILE, TrueNames, parse_map
from kaos_formats.tar import TarReader


def of_models(pachd: Pachd, workspace: str, job_id: str, model: str = "*") -> dict[str, TrueNames]:
    """Model id → its true names, for one model or all of a job; those that need no map are not in it."""
    found: dict[str, TrueNames] = {}
    reader = TarReader(IteratorSource(pachd.read_tar(workspace, names.TRAIN, job_id, f"/{model}/{MAP_FILE}")))
    try:
        for member in reader:
            held = member.name.strip("/").partition("/")[0]
            read = parse_map(b"".join(reader.payload()), held)
            if read is not None:
                found[held] = read
    except errors.NotFound:
        return {}
    return found
