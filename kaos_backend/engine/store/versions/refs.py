"""Reading projects, repos and branches: functions of a connection that write nothing (commits: `history`)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from kaos_backend.engine.errors import NotFound
from kaos_backend.engine.store.model import (
    Branch,
    BranchKey,
    CommitKey,
    Project,
    Repo,
    RepoKey,
)
from kaos_backend.engine.store.versions.propagation import upstream_first

REPO_COLUMNS = "p.name AS project, r.name AS repo, r.type AS type"
_BRANCH_SELECT = f"""
    SELECT b.*, {REPO_COLUMNS}, h.set_id AS head_set FROM branches b
    JOIN repos r ON r.id = b.repo_id JOIN projects p ON p.id = r.project_id
    JOIN commits h ON h.id = b.head_id
"""  # noqa: S608


def metadata_of(text: str) -> dict[str, str]:
    loaded: dict[str, str] = json.loads(text)
    return loaded


def cluster_value(db: sqlite3.Connection, key: str) -> str | None:
    """What is kept of the store as a whole: its `id`, its `metadata` as JSON."""
    row = db.execute("SELECT value FROM cluster WHERE key=?", (key,)).fetchone()
    return None if row is None else str(row[0])


def repo_key_of(row: sqlite3.Row) -> RepoKey:
    """Of a row with REPO_COLUMNS."""
    return RepoKey(row["project"], row["repo"], row["type"])


# Projects


def project_id(db: sqlite3.Connection, name: str) -> int:
    row = db.execute("SELECT id FROM projects WHERE name=?", (name,)).fetchone()
    if row is None:
        raise NotFound(f'project "{name}" not found')
    return int(row[0])


def _project(row: sqlite3.Row) -> Project:
    return Project(row["name"], row["description"], row["created_us"], metadata_of(row["metadata"]))


def inspect_project(db: sqlite3.Connection, name: str) -> Project:
    return _project(db.execute("SELECT * FROM projects WHERE id=?", (project_id(db, name),)).fetchone())


def list_projects(db: sqlite3.Connection) -> list[Project]:
    return [_project(row) for row in db.execute("SELECT * FROM projects ORDER BY name")]


# Repos


def find_repo_id(db: sqlite3.Connection, key: RepoKey) -> int | None:
    row = db.execute(
        """SELECT r.id FROM repos r JOIN projects p ON p.id = r.project_id
           WHERE p.name=? AND r.name=? AND r.type=?""",
        (key.project, key.name, key.type),
    ).fetchone()
    return None if row is None else int(row[0])


def repo_id(db: sqlite3.Connection, key: RepoKey) -> int:
    found = find_repo_id(db, key)
    if found is None:
        raise NotFound(f"repo {key} not found")
    return found


def _repo(row: sqlite3.Row) -> Repo:
    return Repo(repo_key_of(row), row["description"], row["created_us"], metadata_of(row["metadata"]))


_REPO_SELECT = f"""
    SELECT r.description, r.created_us, r.metadata, {REPO_COLUMNS} FROM repos r
    JOIN projects p ON p.id = r.project_id
"""  # noqa: S608


def find_repo(db: sqlite3.Connection, key: RepoKey) -> Repo | None:
    row = db.execute(
        f"{_REPO_SELECT} WHERE p.name=? AND r.name=? AND r.type=?", (key.project, key.name, key.type)
    ).fetchone()
    return None if row is None else _repo(row)


def inspect_repo(db: sqlite3.Connection, key: RepoKey) -> Repo:
    repo = find_repo(db, key)
    if repo is None:
        raise NotFound(f"repo {key} not found")
    return repo


def list_repos(db: sqlite3.Connection, type_: str = "", projects: Sequence[str] = ()) -> list[Repo]:
    """Ordered by project, then name; an empty type is every type, no projects are all of them."""
    rows = db.execute(f"{_REPO_SELECT} ORDER BY p.name, r.name, r.type")
    return [
        _repo(row)
        for row in rows
        if (not type_ or row["type"] == type_) and (not projects or row["project"] in projects)
    ]


def repo_size(db: sqlite3.Connection, key: RepoKey) -> int:
    """Bytes of the newest sized commit of ``master``, 0 without one."""
    row = db.execute(
        f"{_BRANCH_SELECT} WHERE p.name=? AND r.name=? AND r.type=? AND b.name='master'",
        (key.project, key.name, key.type),
    ).fetchone()
    current = None if row is None else row["head_id"]
    while current is not None:
        commit = db.execute("SELECT size_bytes, parent_id FROM commits WHERE id=?", (current,)).fetchone()
        if commit["size_bytes"] is not None:
            return int(commit["size_bytes"])
        current = commit["parent_id"]
    return 0


# Branches


def branch_row(db: sqlite3.Connection, key: BranchKey) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute(
        f"{_BRANCH_SELECT} WHERE p.name=? AND r.name=? AND r.type=? AND b.name=?",
        (key.repo.project, key.repo.name, key.repo.type, key.name),
    ).fetchone()
    return row


def branch_id(db: sqlite3.Connection, key: BranchKey) -> int:
    row = branch_row(db, key)
    if row is None:
        repo_id(db, key.repo)
        raise NotFound(f"branch {key} not found")
    return int(row["id"])


def branch_key(db: sqlite3.Connection, id_: int) -> BranchKey:
    row = db.execute(f"{_BRANCH_SELECT} WHERE b.id=?", (id_,)).fetchone()
    return BranchKey(repo_key_of(row), row["name"])


def direct_provenance(db: sqlite3.Connection, id_: int) -> list[tuple[int, bool]]:
    """(branch id, never) of a branch's direct provenance, in the order given."""
    rows = db.execute(
        "SELECT from_id, never FROM branch_provenance WHERE branch_id=? ORDER BY position", (id_,)
    )
    return [(row[0], bool(row[1])) for row in rows]


def direct_subvenance(db: sqlite3.Connection, id_: int) -> list[int]:
    rows = db.execute("SELECT branch_id FROM branch_provenance WHERE from_id=? ORDER BY branch_id", (id_,))
    return [row[0] for row in rows]


def all_provenance(db: sqlite3.Connection, id_: int) -> list[int]:
    """Every branch upstream, upstream first."""
    return upstream_first([id_], lambda one: [other for other, _ in direct_provenance(db, one)])[:-1]


def all_subvenance(db: sqlite3.Connection, id_: int) -> list[int]:
    """Every branch downstream, farthest last."""
    return upstream_first([id_], lambda one: direct_subvenance(db, one))[:-1][::-1]


def _branch(db: sqlite3.Connection, row: sqlite3.Row) -> Branch:
    repo = repo_key_of(row)
    provenance = [(branch_key(db, id_), never) for id_, never in direct_provenance(db, row["id"])]
    return Branch(
        BranchKey(repo, row["name"]),
        CommitKey(repo, row["head_set"]),
        tuple(key for key, _ in provenance),
        row["created_us"],
        row["updated_us"],
        metadata_of(row["metadata"]),
        row["trigger"],
        frozenset(key for key, never in provenance if never),
    )


def find_branch(db: sqlite3.Connection, key: BranchKey) -> Branch | None:
    row = branch_row(db, key)
    return None if row is None else _branch(db, row)


def inspect_branch(db: sqlite3.Connection, key: BranchKey) -> Branch:
    branch = find_branch(db, key)
    if branch is None:
        repo_id(db, key.repo)
        raise NotFound(f"branch {key} not found")
    return branch


def list_branches(db: sqlite3.Connection, repo: RepoKey, reverse: bool = False) -> list[Branch]:
    """Newest first; oldest first with `reverse`."""
    order = "ASC" if reverse else "DESC"
    rows = db.execute(
        f"{_BRANCH_SELECT} WHERE b.repo_id=? ORDER BY b.created_us {order}, b.id {order}",
        (repo_id(db, repo),),
    ).fetchall()
    return [_branch(db, row) for row in rows]


def cron_triggers(db: sqlite3.Connection) -> set[tuple[BranchKey, str]]:
    """Branches whose trigger has a cron spec, with that."""
    rows = db.execute(
        "SELECT id, trigger FROM branches WHERE CAST(trigger AS TEXT) LIKE '%cron_spec%'"
    ).fetchall()
    specs = [(branch_key(db, row[0]), str(json.loads(row[1]).get("cron_spec") or "")) for row in rows]
    return {(key, spec) for key, spec in specs if spec}
