"""True names of files that PFS holds under escaped ones: what their owner, or a trial, called them."""

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


def of_folder(
    pachd: Pachd, workspace: str, repo: str, commit_id: str, folder: str, at: str = ""
) -> TrueNames | None:
    """The true names below one bundle or model of a commit; None where no map is needed or can be read.

    ``at``: the folder that it is in, where that is not the top.
    """
    try:
        text = b"".join(pachd.read_file(workspace, repo, commit_id, f"{at}/{folder}/{MAP_FILE}"))
    except errors.KaosError:
        return None
    return parse_map(text, folder)
