"""What the meta repo says of a job: one record per datum, its inputs and its output by reference.

Reference: pachyderm-api.md 11.5.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import msgspec

from kaos_backend.engine.jobs.db.rows import DatumRow, Job
from kaos_backend.engine.jobs.schedule.states import DatumState
from kaos_backend.engine.jobs.spec.plan import File
from kaos_backend.engine.store.model import FileSource, Subtree

_SHARED_FILES = 64
_encode = msgspec.json.Encoder().encode
_META_STATE = {DatumState.FAILED: "FAILED", DatumState.RECOVERED: "RECOVERED"}


def record_json(job: Job, datum: DatumRow, image: str) -> bytes:
    """The JSON of `datum.Meta` in protobuf's mapping; names the job that ran the datum."""
    pipeline = {"project": {"name": job.key.pipeline.project}, "name": job.key.pipeline.name}
    return _encode(
        {
            "job": {"pipeline": pipeline, "id": datum.source},
            "inputs": [_input(file) for file in datum.files],
            "hash": datum.hash,
            "state": _META_STATE.get(datum.state, "PROCESSED"),
            "reason": datum.reason,
            "stats": {
                "processTime": f"{datum.process_us / 1e6:.6f}s",
                "downloadBytes": str(datum.download_bytes),
                "uploadBytes": str(datum.upload_bytes),
            },
            "index": str(datum.position),
            "imageId": datum.image or image,
        }
    )


@lru_cache(_SHARED_FILES)
def _input(file: File) -> msgspec.Raw:
    """What all datums of a grid read is encoded once."""
    repo = {"project": {"name": file.project}, "name": file.repo, "type": file.repo_type}
    told = {
        "fileInfo": {
            "file": {"commit": {"repo": repo, "id": file.commit}, "path": file.path, "datum": "default"},
            "fileType": "DIR" if file.is_dir else "FILE",
            "sizeBytes": str(file.size_bytes),
            "hash": base64.b64encode(file.hash).decode(),
        },
        "name": file.name,
        "joinOn": file.join_on,
        "outerJoin": file.outer_join,
        "groupBy": file.group_by,
        "branch": file.branch,
        "emptyFiles": file.empty_files,
        "reference": file.reference,
    }
    return msgspec.Raw(_encode(told))


class Told(NamedTuple):
    """What an earlier meta commit (its `root`) says: of the datums in `kept` what is still true, and of those
    in `gone` what is not. Both by their ids.
    """

    root: bytes
    kept: Collection[str]
    gone: Collection[str]


def entries(
    job: Job,
    datums: Iterable[DatumRow],
    image: str,
    root_of: Callable[[File], bytes | None],
    before: Told | None,
) -> Iterator[tuple[str, Subtree | FileSource | None]]:
    """What the meta commit holds, for `build_tree`: what was told before, and `datums`.

    Inputs whose commit is gone are left out.
    """
    if before is not None:
        for top in ("/meta", "/pfs"):
            yield top, Subtree(before.root, top)
            for id in before.gone:
                yield f"{top}/{id}", None
    for datum in datums:
        yield f"/meta/{datum.id}/meta", FileSource(record_json(job, datum, image), tag=datum.id)
        for file in datum.files:
            root = root_of(file)
            if root is not None and not file.empty_files:
                yield f"/pfs/{datum.id}/{file.name}{file.path.rstrip('/')}", Subtree(root, file.path)
        if datum.root is not None:
            yield f"/pfs/{datum.id}/out", Subtree(datum.root)
