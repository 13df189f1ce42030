"""Stores with a long past, made through the engine's own library: what would take hours through its door."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kaos_backend.engine.ids import new_id
from kaos_backend.engine.jobs.db.rows import MIGRATIONS
from kaos_backend.engine.store.model import BranchKey, RepoKey
from kaos_backend.engine.store.store import Store

FOLDER = 100
"""How many files `in_folders` puts into each."""
_AT_A_TIME = 1000


def repo(name: str) -> RepoKey:
    return RepoKey("default", name)


def in_folders(number: int) -> str:
    """A path among folders of a hundred."""
    return f"/d{number // FOLDER:05}/f{number % FOLDER:02}"


def in_one_folder(number: int) -> str:
    return f"/f{number:07}"


@contextmanager
def opened(home: Path) -> Iterator[Store]:
    """The store of the engine of a home that is not running."""
    store = Store.open(home / "engine", migrations=MIGRATIONS)
    try:
        yield store
    finally:
        store.close()


def add_files(store: Store, name: str, count: int, path_of: Callable[[int], str]) -> None:
    """One finished commit of small files, no two alike."""
    with store.write() as txn:
        txn.create_repo(repo(name))
    with store.upload() as upload:
        for number in range(count):
            upload.add(path_of(number), "", b"%d" % number)
        upload.seal()
        with store.write() as txn:
            commit = txn.start_commit(BranchKey(repo(name), "master"))
            txn.apply(commit, upload)
            txn.finish_commit(commit)


def add_commits(store: Store, name: str, count: int) -> None:
    """Commits on top of each other, each with one change."""
    branch = BranchKey(repo(name), "master")
    for number in range(count):
        with store.upload() as upload:
            upload.delete("/counter", "")
            upload.add("/counter", "", b"%d" % number)
            upload.seal()
            with store.write() as txn:
                commit = txn.start_commit(branch)
                txn.apply(commit, upload)
                txn.finish_commit(commit)


def add_jobs(store: Store, pipeline: str, count: int) -> None:
    """Many more like the newest job of a pipeline, each with the commits of a set of its own."""
    with store.read() as db:
        table = db.execute("PRAGMA table_info(pps_jobs)")
        columns = [row["name"] for row in table if row["name"] not in ("seq", "id")]
        source = db.execute(
            "SELECT j.seq, j.id FROM pps_jobs j JOIN pps_pipelines p ON p.id = j.pipeline WHERE p.name = ? "
            "ORDER BY j.seq DESC",
            (pipeline,),
        ).fetchone()
        commits = db.execute("SELECT * FROM commits WHERE set_id = ?", (source["id"],)).fetchall()
    fields = [key for key in commits[0].keys() if key not in ("id", "set_id")]  # noqa: SIM118 - rows are no dicts
    for start in range(0, count, _AT_A_TIME):
        with store.write() as txn:
            for _ in range(start, min(start + _AT_A_TIME, count)):
                id_ = new_id()
                txn.db.execute(
                    f"INSERT INTO pps_jobs (id, {', '.join(columns)}) "
                    f"SELECT ?, {', '.join(columns)} FROM pps_jobs WHERE seq = ?",
                    (id_, source["seq"]),
                )
                for row in commits:
                    txn.db.execute(
                        f"INSERT INTO commits (set_id, {', '.join(fields)}) VALUES (?{', ?' * len(fields)})",
                        (id_, *(row[field] for field in fields)),
                    )
