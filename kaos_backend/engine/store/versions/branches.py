"""The branch verbs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from kaos_backend.engine.errors import CommitForgotten, Internal, NotFound, Unknown
from kaos_backend.engine.store.model import BranchKey, CommitKey
from kaos_backend.engine.store.names import check_branch_name
from kaos_backend.engine.store.versions import commits, history, refs, triggers
from kaos_backend.engine.store.versions.state import WriteState


def create(
    state: WriteState,
    key: BranchKey,
    head: CommitKey | None = None,
    provenance: Sequence[BranchKey] = (),
    trigger: bytes | None = None,
    never: Iterable[BranchKey] = (),
) -> None:
    """Make a branch or bring it to the given head, provenance and trigger (reference, 5.3)."""
    db = state.db
    check_branch_name(key.name)
    repo_id = refs.repo_id(db, key.repo)
    for source in provenance:
        if source.repo == key.repo:
            raise Unknown(f"{source} cannot be in the provenance of its own branch {key}: they share a repo")
    if provenance and trigger is not None:
        raise Unknown(f"branch {key} cannot have both a trigger and provenance")
    if head is not None and head.repo != key.repo:
        raise Unknown(f"branch {key} and its head commit {head} must belong to the same repo")
    head_id = None
    if head is not None:
        head_row = history.require_commit_row(db, head)
        if head_row["forgotten"]:
            raise CommitForgotten(head)
        head_id = head_row["id"]
    row = refs.branch_row(db, key)
    branch_id = None if row is None else int(row["id"])
    sources = _source_ids(state, provenance)
    if branch_id is not None and any(
        branch_id == source or branch_id in refs.all_provenance(db, source) for source in sources
    ):
        raise Internal(f"the provenance of branch {key} would be a cycle")
    if trigger is not None:
        triggers.check(state, key, repo_id, trigger)
    before = [] if branch_id is None else [id_ for id_, _ in refs.direct_provenance(db, branch_id)]
    changed = set(before) != set(sources)
    spout = commits.from_own_spec(db, key, [(source, False) for source in sources])

    if branch_id is None:
        if head_id is None:
            # A branch always has a head. Provenance is not known to `insert` here: see `open_derived` below.
            waits = bool(sources) and not spout
            first = None if waits else commits.insert(state, repo_id, key.name, "AUTO", closed=True)
            branch_id = _new_branch(state, repo_id, key.name, first, sources, never)
        else:
            branch_id = state.set_head(repo_id, key.name, None, head_id)
            _set_provenance(state, branch_id, sources, never)
    else:
        _set_provenance(state, branch_id, sources, never)
        if changed:
            state.checked.add(branch_id)
            db.execute("UPDATE branches SET updated_us=? WHERE id=?", (state.now_us, branch_id))
        if head_id is not None and row is not None and head_id != row["head_id"]:
            state.set_head(repo_id, key.name, branch_id, head_id)
        elif head_id is None and sources and changed and not spout:
            commits.open_derived(state, branch_id)
    db.execute("UPDATE branches SET trigger=? WHERE id=?", (trigger, branch_id))


def _new_branch(
    state: WriteState,
    repo_id: int,
    name: str,
    first: int | None,
    sources: Sequence[int],
    never: Iterable[BranchKey],
) -> int:
    if first is not None:
        branch_id = state.set_head(repo_id, name, None, first)
        _set_provenance(state, branch_id, sources, never)
        return branch_id
    id_ = commits.insert(
        state,
        repo_id,
        name,
        "AUTO",
        provenance=[
            state.db.execute("SELECT head_id FROM branches WHERE id=?", (source,)).fetchone()[0]
            for source in sources
        ],
    )
    state.opened.append(id_)
    branch_id = state.set_head(repo_id, name, None, id_)
    _set_provenance(state, branch_id, sources, never)
    return branch_id


def _source_ids(state: WriteState, provenance: Sequence[BranchKey]) -> list[int]:
    """The ids of provenance branches; those that do not exist yet are made, with empty heads."""
    ids: list[int] = []
    for source in dict.fromkeys(provenance):
        if refs.branch_row(state.db, source) is None:
            create(state, source)
        ids.append(refs.branch_id(state.db, source))
    return ids


def _set_provenance(
    state: WriteState, branch_id: int, sources: Sequence[int], never: Iterable[BranchKey]
) -> None:
    silent = {refs.branch_id(state.db, key) for key in never}
    state.db.execute("DELETE FROM branch_provenance WHERE branch_id=?", (branch_id,))
    state.db.executemany(
        "INSERT INTO branch_provenance (branch_id, from_id, position, never) VALUES (?,?,?,?)",
        [(branch_id, source, position, int(source in silent)) for position, source in enumerate(sources)],
    )


def delete(state: WriteState, key: BranchKey, force: bool = False) -> None:
    """Delete a branch; its commits stay.

    Raises:
        NotFound: no such repo or branch.
        Unknown: other branches depend on it (without `force`).
    """
    db = state.db
    row = refs.branch_row(db, key)
    if row is None:
        refs.repo_id(db, key.repo)
        raise NotFound(f"branch {key} not found")
    id_ = row["id"]
    dependents = refs.direct_subvenance(db, id_)
    if not force:
        if dependents:
            names = ", ".join(str(refs.branch_key(db, other)) for other in dependents)
            raise Unknown(f"branch {key} cannot be deleted: it is in the direct provenance of {names}")
        if row["trigger"] is not None:
            raise Unknown(f"branch {key} is triggered by branches: {json.loads(row['trigger'])['branch']}")
        others = db.execute(
            "SELECT name, trigger FROM branches WHERE repo_id=?", (row["repo_id"],)
        ).fetchall()
        fed = [r["name"] for r in others if r["trigger"] and json.loads(r["trigger"])["branch"] == key.name]
        if fed:
            raise Unknown(f"branch {key} triggers branches: {', '.join(fed)}")
    remove_rows(state, [id_])


def remove_rows(state: WriteState, ids: Sequence[int]) -> None:
    """Take branches and the edges at them out of the tables."""
    for id_ in ids:
        state.db.execute("DELETE FROM branch_provenance WHERE branch_id=? OR from_id=?", (id_, id_))
        state.db.execute("DELETE FROM branches WHERE id=?", (id_,))
        state.moved.discard(id_)
        state.checked.discard(id_)
