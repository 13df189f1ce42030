"""The commit verbs, and the end of a write transaction: propagation."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from kaos_backend.engine.errors import CommitFinished, CommitForgotten, Unknown
from kaos_backend.engine.store.model import META_REPO, BranchKey, CommitKey
from kaos_backend.engine.store.names import check_branch_name
from kaos_backend.engine.store.trees.tree import find_flaw, root_node
from kaos_backend.engine.store.versions import history, refs, triggers
from kaos_backend.engine.store.versions.propagation import BranchNode, connected, plan, validate
from kaos_backend.engine.store.versions.state import WriteState


def insert(
    state: WriteState,
    repo_id: int,
    branch: str,
    origin: str,
    *,
    description: str = "",
    parent: int | None = None,
    provenance: Sequence[int] = (),
    closed: bool = False,
) -> int:
    """Add a commit (open, or empty and finished) with its provenance; heads are the caller's business.

    Raises:
        Unknown: the repo has a commit of this set already.
    """
    db = state.db
    row = db.execute(
        "SELECT id FROM commits WHERE repo_id=? AND set_id=?", (repo_id, state.set_id)
    ).fetchone()
    if row is not None:
        key = history.commit_by_id(db, row[0]).key
        raise Unknown(f"inconsistent dependencies: repo {key.repo} already has a commit in this transaction")
    base = None if closed else base_of(db, parent)
    base_open = base is not None and base["finishing_us"] is None
    end = state.now_us if closed else None
    cursor = db.execute(
        """INSERT INTO commits (repo_id, set_id, branch, origin, description, parent_id, started_us,
               finishing_us, finished_us, updated_us, size_bytes, root, base_open)
           VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)""",
        (
            repo_id,
            state.set_id,
            branch,
            origin,
            description,
            parent,
            state.now_us,
            end,
            end,
            state.now_us,
            0 if closed else None,
            None if base is None or base_open else base["root"],
            int(base_open),
        ),
    )
    id_ = cursor.lastrowid
    assert id_ is not None
    db.executemany(
        "INSERT OR IGNORE INTO commit_provenance (commit_id, from_id, position) VALUES (?,?,?)",
        [(id_, source, position) for position, source in enumerate(provenance)],
    )
    return id_


def base_of(db: sqlite3.Connection, parent: int | None) -> sqlite3.Row | None:
    """The commit whose content a child of `parent` starts with: the nearest ancestor without an error.

    Raises:
        Unknown: that is forgotten.
    """
    for ancestor in history.ancestors(db, parent):
        row: sqlite3.Row = db.execute("SELECT * FROM commits WHERE id=?", (ancestor,)).fetchone()
        if not row["error"]:
            if row["forgotten"]:
                raise CommitForgotten(history.commit_by_id(db, ancestor).key)
            return row
    return None


def start(
    state: WriteState,
    branch: BranchKey,
    parent: CommitKey | None = None,
    description: str = "",
    origin: str = "USER",
    internal: bool = False,
) -> CommitKey:
    """Start a commit on a branch (made if missing) and move the branch's head to it."""
    db = state.db
    if not branch.name:
        raise Unknown("branch must be specified")
    check_branch_name(branch.name)
    repo_id = refs.repo_id(db, branch.repo)
    row = refs.branch_row(db, branch)
    sources = [] if row is None else refs.direct_provenance(db, row["id"])
    if sources and not internal and not from_own_spec(db, branch, sources):
        raise Unknown(f"cannot start a commit on an output branch: {branch}")
    parent_id: int | None = None if row is None else row["head_id"]
    if parent is not None:
        if parent.repo != branch.repo:
            raise Unknown(f"parent commit {parent} and branch {branch} must belong to the same repo")
        parent_id = history.require_commit_row(db, parent)["id"]
    if parent_id is not None:
        parent_row = history.commit_row(db, parent_id)
        if parent_row["finishing_us"] is None and parent_row["set_id"] != state.set_id:
            key = CommitKey(branch.repo, parent_row["set_id"])
            raise Unknown(f"parent commit {key} has not been finished: finish or drop it first")
    id_ = insert(
        state,
        repo_id,
        branch.name,
        origin,
        description=description,
        parent=parent_id,
        provenance=_heads(db, sources),
    )
    state.set_head(repo_id, branch.name, None if row is None else row["id"], id_)
    return CommitKey(branch.repo, state.set_id)


def from_own_spec(db: sqlite3.Connection, branch: BranchKey, sources: Sequence[tuple[int, bool]]) -> bool:
    """Whether the only thing that a branch depends on is the spec of its pipeline, as with spouts."""
    return [refs.branch_key(db, id_).repo for id_, _ in sources] == [branch.repo.spec]


def _heads(db: sqlite3.Connection, sources: Sequence[tuple[int, bool]]) -> list[int]:
    return [db.execute("SELECT head_id FROM branches WHERE id=?", (id_,)).fetchone()[0] for id_, _ in sources]


def open_derived(state: WriteState, branch_id: int) -> int:
    """Give a branch with provenance a new open AUTO commit over the current heads of its provenance."""
    db = state.db
    row = db.execute("SELECT repo_id, name, head_id FROM branches WHERE id=?", (branch_id,)).fetchone()
    id_ = insert(
        state,
        row["repo_id"],
        row["name"],
        "AUTO",
        parent=row["head_id"],
        provenance=_heads(db, refs.direct_provenance(db, branch_id)),
    )
    state.set_head(row["repo_id"], row["name"], branch_id, id_)
    state.opened.append(id_)
    return id_


def start_alike(state: WriteState, key: CommitKey, instead: Mapping[CommitKey, CommitKey]) -> CommitKey:
    """Start a derived commit on what `key` came from, but for the commits that `instead` names others for.

    It becomes the head of its branch if `key` is; otherwise it is on none.

    Raises:
        NotFound: there is no commit `key`.
        Unknown: what it came from is forgotten.
    """
    db = state.db
    row = history.require_commit_row(db, key)
    sources = db.execute(
        "SELECT from_id FROM commit_provenance WHERE commit_id=? ORDER BY position", (row["id"],)
    )
    others = {history.require_commit_row(db, old)["id"]: new for old, new in instead.items()}
    provenance = [
        history.require_commit_row(db, others[source])["id"] if source in others else source
        for (source,) in sources.fetchall()
    ]
    for source in provenance:
        history.commit_by_id(db, source).require_kept()
    branch = db.execute(
        "SELECT id, name FROM branches WHERE repo_id=? AND name=? AND head_id=?",
        (row["repo_id"], row["branch"], row["id"]),
    ).fetchone()
    id_ = insert(
        state,
        row["repo_id"],
        "" if branch is None else branch["name"],
        "AUTO",
        parent=row["id"],
        provenance=provenance,
    )
    if branch is not None:
        state.set_head(row["repo_id"], branch["name"], branch["id"], id_)
    return CommitKey(key.repo, state.set_id)


def finish(
    state: WriteState, key: CommitKey, error: str = "", description: str | None = None, force: bool = False
) -> None:
    """Finish an open commit: validate its paths, fix its size, give waiting children their content."""
    db = state.db
    row = history.require_commit_row(db, key)
    id_ = row["id"]
    if row["finishing_us"] is not None:
        raise CommitFinished(key)
    derived = db.execute("SELECT 1 FROM commit_provenance WHERE commit_id=?", (id_,)).fetchone() is not None
    if not force and (key.repo.type == META_REPO or (row["origin"] == "AUTO" and derived)):
        raise Unknown(
            f"cannot finish a pipeline output or meta commit ({key}) without force: its job does that"
        )
    if row["base_open"] and not error:
        raise unfinished_base(state, row)
    error = error or find_flaw(state.load, row["root"])
    db.execute(
        """UPDATE commits SET finishing_us=?, finished_us=?, updated_us=?, error=?, size_bytes=?,
               description=? WHERE id=?""",
        (
            state.now_us,
            state.now_us,
            state.now_us,
            error,
            root_node(state.load, row["root"]).size,
            description or row["description"],
            id_,
        ),
    )
    _settle_children(state, id_)
    if not error:
        triggers.fire(state, id_)


def unfinished_base(state: WriteState, row: sqlite3.Row) -> Unknown:
    base = base_of(state.db, row["parent_id"])
    name = "?" if base is None else base["set_id"]
    return Unknown(
        f"base commit {name} for commit {row['set_id']} of repo {row['project']}/{row['repo']} unfinished"
    )


def _settle_children(state: WriteState, id_: int) -> None:
    """Give descendants that waited for their base the content it has now."""
    db = state.db
    waiting = [id_]
    while waiting:
        parent = waiting.pop()
        rows = db.execute("SELECT id FROM commits WHERE parent_id=? AND base_open=1", (parent,)).fetchall()
        for child in rows:
            base = base_of(db, parent)
            if base is not None and base["finishing_us"] is None:
                continue
            db.execute(
                "UPDATE commits SET root=?, base_open=0 WHERE id=?",
                (None if base is None else base["root"], child[0]),
            )
            waiting.append(child[0])


def clear(state: WriteState, key: CommitKey) -> None:
    """Drop what was written to an open commit: it is its base again."""
    row = history.require_commit_row(state.db, key)
    if row["finishing_us"] is not None:
        raise Unknown(f"cannot clear finished commit {key}")
    base = base_of(state.db, row["parent_id"])
    base_open = base is not None and base["finishing_us"] is None
    state.db.execute(
        "UPDATE commits SET root=?, base_open=?, updated_us=? WHERE id=?",
        (None if base is None or base_open else base["root"], int(base_open), state.now_us, row["id"]),
    )


def forget(state: WriteState, key: CommitKey) -> None:
    """Let go of what a finished commit of the past holds; its place in the history stays.

    Raises:
        Unknown: it is open, the head of a branch, or what an open commit is made of.
    """
    db = state.db
    row = history.require_commit_row(db, key)
    if row["finishing_us"] is None:
        raise Unknown(f"cannot forget commit {key}: it has not been finished")
    heads = db.execute("SELECT name FROM branches WHERE head_id=?", (row["id"],)).fetchall()
    if heads:
        names = ", ".join(one[0] for one in heads)
        raise Unknown(f"cannot forget commit {key}: it is the head of branch {names}")
    readers = db.execute(
        """SELECT 1 FROM commits WHERE finishing_us IS NULL AND (parent_id=:id OR id IN
               (SELECT commit_id FROM commit_provenance WHERE from_id=:id))""",
        {"id": row["id"]},
    ).fetchone()
    if readers is not None:
        raise Unknown(f"cannot forget commit {key}: a commit that is still open is made of it")
    db.execute(
        "UPDATE commits SET root=NULL, forgotten=1, updated_us=? WHERE id=?", (state.now_us, row["id"])
    )


def set_root(state: WriteState, key: CommitKey, root: bytes | None) -> None:
    """Replace the content of an open commit."""
    row = history.require_commit_row(state.db, key)
    if row["finishing_us"] is not None:
        raise CommitFinished(key)
    state.db.execute(
        "UPDATE commits SET root=?, base_open=0, updated_us=? WHERE id=?", (root, state.now_us, row["id"])
    )


def propagate(state: WriteState) -> None:
    """Validate the graphs around what changed; give what is downstream of a moved head its new commit."""
    if not state.checked:
        return
    graph = _graph(state.db, state.checked)
    validate(graph, state.checked & graph.keys())
    order = plan(graph, state.moved & graph.keys(), state.set_id)
    state.moved.clear()
    for branch_id in order:
        open_derived(state, branch_id)
    state.moved.clear()
    state.checked.clear()


def _graph(db: sqlite3.Connection, start: set[int]) -> Mapping[int, BranchNode]:
    ids = connected(
        start,
        lambda id_: [other for other, _ in refs.direct_provenance(db, id_)],
        lambda id_: refs.direct_subvenance(db, id_),
    )
    graph = {}
    for id_ in sorted(ids):
        row = db.execute(
            "SELECT c.set_id FROM branches b JOIN commits c ON c.id = b.head_id WHERE b.id=?", (id_,)
        ).fetchone()
        if row is not None:
            graph[id_] = BranchNode(
                id_, refs.branch_key(db, id_), row[0], tuple(refs.direct_provenance(db, id_))
            )
    return graph
