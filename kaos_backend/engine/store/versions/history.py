"""Reading commits, their ancestry and their sets: functions of a connection that write nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from kaos_backend.engine.errors import NotFound, Unknown
from kaos_backend.engine.ids import is_id
from kaos_backend.engine.store.model import Commit, CommitKey, RepoKey
from kaos_backend.engine.store.names import parse_commit
from kaos_backend.engine.store.versions.propagation import upstream_first
from kaos_backend.engine.store.versions.refs import REPO_COLUMNS, metadata_of, repo_id, repo_key_of

_COMMIT_SELECT = f"""
    SELECT c.*, {REPO_COLUMNS}, pc.set_id AS parent_set FROM commits c
    JOIN repos r ON r.id = c.repo_id JOIN projects p ON p.id = r.project_id
    LEFT JOIN commits pc ON pc.id = c.parent_id
"""  # noqa: S608


def _commit_keys(db: sqlite3.Connection, sql: str, id_: int) -> tuple[CommitKey, ...]:
    rows = db.execute(
        f"SELECT {REPO_COLUMNS}, c.set_id AS set_id FROM commits c JOIN repos r ON r.id = c.repo_id "  # noqa: S608
        f"JOIN projects p ON p.id = r.project_id {sql}",
        (id_,),
    )
    return tuple(CommitKey(repo_key_of(row), row["set_id"]) for row in rows)


def commit_of(db: sqlite3.Connection, row: sqlite3.Row) -> Commit:
    key = CommitKey(repo_key_of(row), row["set_id"])
    id_ = row["id"]
    return Commit(
        key=key,
        branch=row["branch"],
        origin=row["origin"],
        description=row["description"],
        parent=None if row["parent_set"] is None else CommitKey(key.repo, row["parent_set"]),
        children=_commit_keys(db, "WHERE c.parent_id=? ORDER BY c.id", id_),
        provenance=_commit_keys(
            db, "JOIN commit_provenance x ON x.from_id=c.id WHERE x.commit_id=? ORDER BY x.position", id_
        ),
        subvenance=_commit_keys(
            db, "JOIN commit_provenance x ON x.commit_id=c.id WHERE x.from_id=? ORDER BY c.id", id_
        ),
        started_us=row["started_us"],
        finishing_us=row["finishing_us"],
        finished_us=row["finished_us"],
        error=row["error"],
        size_bytes=row["size_bytes"],
        tree=row["root"],
        metadata=metadata_of(row["metadata"]),
        updated_us=row["updated_us"],
        base_open=bool(row["base_open"]),
        forgotten=bool(row["forgotten"]),
    )


def commit_row(db: sqlite3.Connection, id_: int) -> sqlite3.Row:
    row: sqlite3.Row = db.execute(f"{_COMMIT_SELECT} WHERE c.id=?", (id_,)).fetchone()
    return row


def commit_by_id(db: sqlite3.Connection, id_: int) -> Commit:
    return commit_of(db, commit_row(db, id_))


def find_commit_row(db: sqlite3.Connection, key: CommitKey) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute(
        f"{_COMMIT_SELECT} WHERE p.name=? AND r.name=? AND r.type=? AND c.set_id=?",
        (key.repo.project, key.repo.name, key.repo.type, key.id),
    ).fetchone()
    return row


def require_commit_row(db: sqlite3.Connection, key: CommitKey) -> sqlite3.Row:
    row = find_commit_row(db, key)
    if row is None:
        repo_id(db, key.repo)
        raise NotFound(f"commit {key} not found")
    return row


def resolve_id(db: sqlite3.Connection, repo: RepoKey, text: str) -> int:
    """The commit that an id, branch name, ancestry text or set id names in `repo`.

    Raises:
        NotFound: no such repo, branch or commit, or the ancestry goes past the first commit.
        Unknown: `text` is empty or its ancestry suffix is malformed.
    """
    if not text:
        raise Unknown(f"commit of repo {repo} has no ID or branch")
    where = repo_id(db, repo)
    base, back, from_root = parse_commit(text)
    current = _base_id(db, where, repo, base)
    if from_root is not None:
        line = [current]
        while (parent := _parent(db, line[-1])) is not None:
            line.append(parent)
        if from_root > len(line):
            raise NotFound(f"commit {repo}@{text} not found: {base} has {len(line)} commits")
        return line[-from_root]
    for _ in range(back):
        parent = _parent(db, current)
        if parent is None:
            raise NotFound(f"commit {repo}@{text} not found: it goes past the first commit")
        current = parent
    return current


def _base_id(db: sqlite3.Connection, where: int, repo: RepoKey, base: str) -> int:
    if not is_id(base):
        row = db.execute("SELECT head_id FROM branches WHERE repo_id=? AND name=?", (where, base)).fetchone()
        if row is None:
            raise NotFound(f"branch {repo}@{base} not found")
        return int(row[0])
    row = db.execute("SELECT id FROM commits WHERE repo_id=? AND set_id=?", (where, base)).fetchone()
    if row is None:
        # A set id also names, in every repo upstream of the set, the commit that the set's commits read.
        row = db.execute(
            """WITH RECURSIVE up(id) AS (
                   SELECT id FROM commits WHERE set_id=?
                   UNION SELECT x.from_id FROM commit_provenance x JOIN up ON up.id = x.commit_id)
               SELECT c.id FROM up JOIN commits c ON c.id = up.id WHERE c.repo_id=? ORDER BY c.id DESC""",
            (base, where),
        ).fetchone()
    if row is None:
        raise NotFound(f"commit {repo}@{base} not found")
    return int(row[0])


def _parent(db: sqlite3.Connection, id_: int) -> int | None:
    row = db.execute("SELECT parent_id FROM commits WHERE id=?", (id_,)).fetchone()
    return None if row[0] is None else int(row[0])


def ancestors(db: sqlite3.Connection, id_: int | None) -> Iterator[int]:
    """`id_` and its parents, newest first."""
    while id_ is not None:
        yield id_
        id_ = _parent(db, id_)


def list_commits(
    db: sqlite3.Connection,
    repo: RepoKey,
    from_: CommitKey | None = None,
    to: CommitKey | None = None,
    number: int = 0,
    reverse: bool = False,
    origin: str = "",
) -> Iterator[Commit]:
    """Newest first (oldest first with `reverse`); `to` inclusive and `from_` exclusive, both by ancestry."""
    where = repo_id(db, repo)
    if from_ is not None and to is None:
        raise Unknown("cannot use `from` commit without `to` commit")
    if reverse and to is not None:
        raise Unknown("cannot use `reverse` together with `from` or `to`")
    ids: Iterator[int]
    if to is not None:
        ids = ancestors(db, require_commit_row(db, to)["id"])
        stop = None if from_ is None else require_commit_row(db, from_)["id"]
    else:
        order = "ASC" if reverse else "DESC"
        sql = f"SELECT id FROM commits WHERE repo_id=? ORDER BY id {order}"  # noqa: S608
        ids, stop = (row[0] for row in db.execute(sql, (where,))), None
    count = 0
    for id_ in ids:
        if id_ == stop or (number and count >= number):
            return
        commit = commit_by_id(db, id_)
        if origin and commit.origin != origin:
            continue
        count += 1
        yield commit


def commits_after(
    db: sqlite3.Connection, repo: RepoKey, position: int, branch: str, origin: str, number: int
) -> list[tuple[int, Commit]]:
    """(position, commit) of up to `number` commits made in a repo after `position` (0: of all), oldest first.

    `branch` and `origin` restrict to those made on a branch, or of a kind; "": any.
    """
    rows = db.execute(
        """SELECT id FROM commits WHERE repo_id=:repo AND id > :position AND (:branch='' OR branch=:branch)
           AND (:origin='' OR origin=:origin) ORDER BY id LIMIT :number""",
        {
            "repo": repo_id(db, repo),
            "position": position,
            "branch": branch,
            "origin": origin,
            "number": number,
        },
    )
    return [(row[0], commit_by_id(db, row[0])) for row in rows.fetchall()]


def set_commit_ids(db: sqlite3.Connection, set_id: str) -> list[int]:
    """The commits of a set, upstream first."""
    ids = [row[0] for row in db.execute("SELECT id FROM commits WHERE set_id=? ORDER BY id", (set_id,))]
    if not ids:
        raise NotFound(f"no commits found for commitset {set_id}")
    inside = set(ids)
    return [id_ for id_ in _upstream_first(db, ids) if id_ in inside]


def commit_set(db: sqlite3.Connection, set_id: str) -> list[Commit]:
    """The commits of a set and everything in their provenance, upstream first."""
    return [commit_by_id(db, id_) for id_ in _upstream_first(db, set_commit_ids(db, set_id))]


def _upstream_first(db: sqlite3.Connection, ids: Sequence[int]) -> list[int]:
    def sources(id_: int) -> list[int]:
        rows = db.execute("SELECT from_id FROM commit_provenance WHERE commit_id=? ORDER BY position", (id_,))
        return [row[0] for row in rows]

    return upstream_first(ids, sources)


def set_ids(db: sqlite3.Connection, project: str = "") -> list[str]:
    """The sets that have a commit in `project` (empty: in any), newest first."""
    rows = db.execute(
        """SELECT c.set_id, MAX(c.id) AS last FROM commits c JOIN repos r ON r.id = c.repo_id
           JOIN projects p ON p.id = r.project_id WHERE ?='' OR p.name=?
           GROUP BY c.set_id ORDER BY last DESC""",
        (project, project),
    )
    return [row[0] for row in rows]
