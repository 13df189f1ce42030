"""What takes the disk, and whose it is."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kaos_backend.engine.jobs.db import tables
from kaos_backend.engine.jobs.run.inputs import InputCache
from kaos_backend.engine.jobs.run.logs import Logs
from kaos_backend.engine.store.model import CommitKey
from kaos_backend.engine.store.space.pace import Pace
from kaos_backend.engine.store.space.usage import measure
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.workers.port import Runtime
from kaos_formats.folders import disk_bytes
from kaos_formats.home import fetched_files
from kaos_formats.images import BUILDER_IMAGE

_PAGE = 2000
_MODELS = "models"
_DATA = "data"
# Commits of a repo with a pipeline of its name are what that wrote; so is what its datums left. But what the
# builder's programs make, fetched data above all, was not trained.
_COMMITS = """
SELECT c.id, c.root FROM commits c JOIN repos r ON r.id = c.repo_id JOIN projects p ON p.id = r.project_id
WHERE p.name = ? AND c.id > ? AND c.root IS NOT NULL
AND ? = (r.type != 'user' OR EXISTS (
    SELECT 1 FROM pps_pipelines WHERE pps_pipelines.project = p.name AND pps_pipelines.name = r.name
    AND r.name NOT IN (SELECT value FROM json_each(?))))
ORDER BY c.id LIMIT ?
"""
_OUTPUTS = """
SELECT d.rowid, d.root FROM pps_datums d JOIN pps_jobs j ON j.seq = d.job
JOIN pps_pipelines p ON p.id = j.pipeline
WHERE p.project = ? AND d.rowid > ? AND d.root IS NOT NULL ORDER BY d.rowid LIMIT ?
"""


@dataclass(slots=True)
class Share:
    """Bytes of the disk. `images` with environments and layers; `inputs` are those laid out for trials, and
    what fetches of remote data keep.
    """

    data: int = 0
    models: int = 0
    images: int = 0
    inputs: int = 0
    logs: int = 0


@dataclass(slots=True)
class DiskUse:
    """What is in one project alone, what several share, what nothing needs, and the database of all."""

    projects: dict[str, Share]
    shared: Share
    unneeded: Share
    database: int


def disk_use(store: Store, runtime: Runtime, logs: Logs, inputs: InputCache) -> DiskUse:
    """Measure everything. Each byte is counted once.

    Raises:
        FailedPrecondition: a directory is damaged.
        EngineError: who has the images does not answer.
    """
    names = [project.name for project in store.list_projects()]
    use = DiskUse({name: Share() for name in names}, Share(), Share(), 0)

    def whose(projects: Iterable[str]) -> Share:
        there = {one for one in projects if one in use.projects}
        return use.projects[there.pop()] if len(there) == 1 else use.shared if there else use.unneeded

    owned = {
        (name, kind): _trees(store, name, kind, _of_builder(store, name))
        for name in names
        for kind in (_DATA, _MODELS)
    }
    for owners, size in measure(store, owned, Pace()).items():
        share = whose(name for name, _ in owners)
        # What a model has of its data counts as data.
        if any(kind == _DATA for _, kind in owners) or not owners:
            share.data += size
        else:
            share.models += size
    use.shared.data += store.partials.total_bytes()
    for stored in runtime.stored_images():
        with store.read() as db:
            users = {name for image in stored.images for name in tables.projects_with(db, image)}
        whose(users).images += stored.size
    for usage in inputs.usage():
        there = [text for text in usage.commits if store.find_commit(CommitKey.parse(text)) is not None]
        whose(text.partition("/")[0] for text in there).inputs += usage.bytes
    use.shared.inputs += disk_bytes(fetched_files(store.root.parent))
    for folder in logs.root.glob("*/"):
        whose([folder.name]).logs += disk_bytes(folder)
    use.database = sum(path.stat().st_size for path in store.root.glob("engine.sqlite*"))
    return use


def _of_builder(store: Store, project: str) -> str:
    """The pipelines of a project whose programs are the builder's, as JSON."""
    with store.read() as db:
        found = tables.pipelines(db, projects=[project])
    images = ((one.key.name, one.spec.transform.image if one.spec.transform else "") for one in found)
    return json.dumps([name for name, image in images if image == BUILDER_IMAGE])


def _trees(store: Store, project: str, kind: str, of_builder: str) -> Iterator[set[bytes]]:
    """The roots of what a project has put in, or of what its pipelines made."""
    yield from _pages(store, _COMMITS, project, kind == _MODELS, of_builder)
    if kind == _MODELS:
        yield from _pages(store, _OUTPUTS, project)


def _pages(store: Store, sql: str, project: str, *more: object) -> Iterator[set[bytes]]:
    after = -1
    while True:
        with store.read() as db:
            rows: list[sqlite3.Row] = db.execute(sql, (project, after, *more, _PAGE)).fetchall()
        if not rows:
            return
        after = rows[-1][0]
        yield {row[1] for row in rows}
