"""The store's tables. Each entry of MIGRATIONS is applied once, in order, and never edited afterwards."""

from __future__ import annotations

Migration = tuple[str, str]
"""A name that stays for ever, and the SQL that it stands for."""

_INITIAL = """
CREATE TABLE packs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE
);
-- Where the bytes of an object are: in a pack (pack, offset), in a loose file (pack IS NULL), or in
-- small_objects (pack = -1).
CREATE TABLE objects (
    hash BLOB PRIMARY KEY,
    pack INTEGER,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL
) WITHOUT ROWID;
-- The bytes of objects that came in such small numbers that a pack would have been waste.
CREATE TABLE small_objects (
    hash BLOB PRIMARY KEY,
    data BLOB NOT NULL
);
CREATE TABLE trees (
    key BLOB PRIMARY KEY,
    node BLOB NOT NULL
);
CREATE TABLE projects (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    metadata TEXT NOT NULL DEFAULT '{}'
);
CREATE TABLE repos (
    id INTEGER PRIMARY KEY,
    project_id INTEGER NOT NULL REFERENCES projects(id),
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    description TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    metadata TEXT NOT NULL DEFAULT '{}',
    UNIQUE (project_id, name, type)
);
CREATE TABLE commits (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    repo_id INTEGER NOT NULL REFERENCES repos(id),
    set_id TEXT NOT NULL,
    branch TEXT NOT NULL,
    origin TEXT NOT NULL,
    description TEXT NOT NULL,
    parent_id INTEGER REFERENCES commits(id),
    started_us INTEGER NOT NULL,
    finishing_us INTEGER,
    finished_us INTEGER,
    updated_us INTEGER NOT NULL,
    error TEXT NOT NULL DEFAULT '',
    size_bytes INTEGER,
    root BLOB,
    -- 1 while the base is still open, so that `root` is not known yet.
    base_open INTEGER NOT NULL DEFAULT 0,
    metadata TEXT NOT NULL DEFAULT '{}',
    UNIQUE (repo_id, set_id)
);
CREATE INDEX commits_by_set ON commits (set_id);
CREATE INDEX commits_by_parent ON commits (parent_id);
CREATE TABLE branches (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    repo_id INTEGER NOT NULL REFERENCES repos(id),
    name TEXT NOT NULL,
    head_id INTEGER NOT NULL REFERENCES commits(id),
    created_us INTEGER NOT NULL,
    updated_us INTEGER NOT NULL,
    trigger BLOB,
    -- The source commit at which the trigger last fired.
    triggered_id INTEGER,
    metadata TEXT NOT NULL DEFAULT '{}',
    UNIQUE (repo_id, name)
);
CREATE INDEX branches_by_head ON branches (head_id);
CREATE TABLE branch_provenance (
    branch_id INTEGER NOT NULL REFERENCES branches(id),
    from_id INTEGER NOT NULL REFERENCES branches(id),
    position INTEGER NOT NULL,
    never INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (branch_id, from_id)
) WITHOUT ROWID;
CREATE INDEX branch_subvenance ON branch_provenance (from_id);
CREATE TABLE commit_provenance (
    commit_id INTEGER NOT NULL REFERENCES commits(id),
    from_id INTEGER NOT NULL REFERENCES commits(id),
    position INTEGER NOT NULL,
    PRIMARY KEY (commit_id, from_id)
) WITHOUT ROWID;
CREATE INDEX commit_subvenance ON commit_provenance (from_id);
CREATE TABLE transactions (
    id TEXT PRIMARY KEY,
    started_us INTEGER NOT NULL,
    version INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE transaction_requests (
    transaction_id TEXT NOT NULL REFERENCES transactions(id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    request BLOB NOT NULL,
    response BLOB NOT NULL,
    PRIMARY KEY (transaction_id, position)
) WITHOUT ROWID;
CREATE TABLE cluster (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
"""

# Objects (and nodes of trees) that were found to be damaged or gone: they count as absent.
_DAMAGED = """
CREATE TABLE damaged (
    hash BLOB PRIMARY KEY,
    what TEXT NOT NULL
) WITHOUT ROWID;
"""

# What a forgotten commit held is gone for its readers; its place in the history stays.
_FORGOTTEN = "ALTER TABLE commits ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0;"

# In the order in which they were made.
_COMMITS_BY_REPO = "CREATE INDEX commits_by_repo ON commits (repo_id, id);"

MIGRATIONS: tuple[Migration, ...] = (
    ("store-1", _INITIAL),
    ("store-2-damaged", _DAMAGED),
    ("store-3-forgotten", _FORGOTTEN),
    ("store-4-commits-by-repo", _COMMITS_BY_REPO),
)
