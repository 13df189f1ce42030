"""What the meta repo says of a job: one record per datum, its inputs and its output by reference.

Reference: pachyderm-api.md 11.5.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable

from kaos_backend.engine.jobs.db.rows import DatumRow, Job
from kaos_backend.engine.jobs.schedule.states import DatumState
from kaos_backend.engine.jobs.spec.plan import File
from kaos_backend.engine.store.model import FileSource, Subtree

_META_STATE = {DatumState.FAILED: "FAILED", DatumState.RECOVERED: "RECOVERED"}


def record_json(job: Job, datum: DatumRow, image: str) -> bytes:
    """The JSON of `datum.Meta` in protobuf's mapping; names the job that ran the datum."""
    pipeline = {"project": {"name": job.key.pipeline.project}, "name": job.key.pipeline.name}
    return json.dumps(
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
        },
        separators=(",", ":"),
    ).encode()


def _input(file: File) -> dict[str, object]:
    repo = {"project": {"name": file.project}, "name": file.repo, "type": file.repo_type}
    return {
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


def entries(
    job: Job, datums: Iterable[DatumRow], image: str, root_of: Callable[[File], bytes | None]
) -> dict[str, Subtree | FileSource]:
    """What the meta commit holds, for `build_tree`. Inputs whose commit is gone are left out."""
    tree: dict[str, Subtree | FileSource] = {}
    for datum in datums:
        tree[f"/meta/{datum.id}/meta"] = FileSource(record_json(job, datum, image), tag=datum.id)
        for file in datum.files:
            root = root_of(file)
            if root is not None and not file.empty_files:
                tree[f"/pfs/{datum.id}/{file.name}{file.path.rstrip('/')}"] = Subtree(root, file.path)
        if datum.root is not None:
            tree[f"/pfs/{datum.id}/out"] = Subtree(datum.root)
    return tree
