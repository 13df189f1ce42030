"""Taking commits away again: squash (their content lives on in their children) and drop (it does not)."""

from __future__ import annotations

from collections.abc import Sequence

from kaos_backend.engine.errors import Unknown
from kaos_backend.engine.store.model import SPEC_REPO, CommitKey
from kaos_backend.engine.store.versions import commits, history
from kaos_backend.engine.store.versions.state import WriteState


def squash_set(state: WriteState, set_id: str) -> None:
    """Fold every commit of a set into its children."""
    _squash(state, history.set_commit_ids(state.db, set_id))


def drop_set(state: WriteState, set_id: str) -> None:
    """Delete every commit of a set; branch heads go back to the parents."""
    _drop(state, history.set_commit_ids(state.db, set_id))


def squash_commit(state: WriteState, key: CommitKey, recursive: bool) -> None:
    """Fold one commit, and with `recursive` everything made from it, into the children."""
    _squash(state, _with_subvenance(state, key, recursive, "squash"))


def drop_commit(state: WriteState, key: CommitKey, recursive: bool) -> None:
    """Delete one commit, and with `recursive` everything made from it."""
    _drop(state, _with_subvenance(state, key, recursive, "drop"))


def _with_subvenance(state: WriteState, key: CommitKey, recursive: bool, verb: str) -> list[int]:
    start = history.require_commit_row(state.db, key)["id"]
    found = [start]
    for id_ in found:
        rows = state.db.execute("SELECT commit_id FROM commit_provenance WHERE from_id=?", (id_,)).fetchall()
        found += [row[0] for row in rows if row[0] not in found]
    if len(found) > 1 and not recursive:
        raise Unknown(f"cannot {verb} commit ({key}) with subvenance without recursive")
    return found


def _squash(state: WriteState, ids: Sequence[int]) -> None:
    db = state.db
    _refuse_linked(state, ids)
    for id_ in ids:
        children = db.execute("SELECT id, finished_us FROM commits WHERE parent_id=?", (id_,)).fetchall()
        if not children:
            raise Unknown(f"cannot squash a commit that has no children: {_key(state, id_)}")
        for child in children:
            if child["finished_us"] is None:
                raise Unknown(
                    f"cannot squash commit {_key(state, id_)}: "
                    f"its child {_key(state, child['id'])} is not finished"
                )
    state.before_drop([_key(state, id_) for id_ in ids])
    # All links first: within a set they point from one of its commits to another.
    for id_ in ids:
        db.execute("DELETE FROM commit_provenance WHERE commit_id=?", (id_,))
    for id_ in ids:
        row = db.execute("SELECT parent_id FROM commits WHERE id=?", (id_,)).fetchone()
        child = db.execute("SELECT id FROM commits WHERE parent_id=? ORDER BY id", (id_,)).fetchone()
        db.execute("UPDATE branches SET head_id=? WHERE head_id=?", (child[0], id_))
        db.execute("UPDATE commits SET parent_id=? WHERE parent_id=?", (row["parent_id"], id_))
        db.execute("DELETE FROM commits WHERE id=?", (id_,))


def _drop(state: WriteState, ids: Sequence[int]) -> None:
    db = state.db
    _refuse_linked(state, ids)
    for id_ in ids:
        if db.execute("SELECT 1 FROM commits WHERE parent_id=?", (id_,)).fetchone() is not None:
            raise Unknown(f"cannot drop a commit that has children: {_key(state, id_)}")
    state.before_drop([_key(state, id_) for id_ in ids])
    # All links first: within a set they point from one of its commits to another.
    for id_ in ids:
        db.execute("DELETE FROM commit_provenance WHERE commit_id=?", (id_,))
    for id_ in ids:
        row = db.execute("SELECT repo_id, branch, parent_id FROM commits WHERE id=?", (id_,)).fetchone()
        heads = db.execute("SELECT id, name FROM branches WHERE head_id=?", (id_,)).fetchall()
        new_head = row["parent_id"]
        if heads and new_head is None:
            new_head = commits.insert(state, row["repo_id"], row["branch"], "AUTO", closed=True)
        for branch in heads:
            db.execute(
                "UPDATE branches SET head_id=?, updated_us=? WHERE id=?",
                (new_head, state.now_us, branch["id"]),
            )
        db.execute("DELETE FROM commits WHERE id=?", (id_,))


def _refuse_linked(state: WriteState, ids: Sequence[int]) -> None:
    """Refuse what other sets were made from, and what changed a pipeline."""
    db = state.db
    inside = set(ids)
    for id_ in ids:
        row = history.commit_row(db, id_)
        if row["type"] == SPEC_REPO and row["origin"] == "USER":
            raise Unknown(f"cannot squash commit {_key(state, id_)} because it updated a pipeline")
        users = db.execute("SELECT commit_id FROM commit_provenance WHERE from_id=?", (id_,)).fetchall()
        outside = [user[0] for user in users if user[0] not in inside]
        if outside:
            names = ", ".join(str(_key(state, user)) for user in outside)
            raise Unknown(
                f"commit {_key(state, id_)} has subvenant commit sets: "
                f"{names} must be squashed or dropped first"
            )


def _key(state: WriteState, id_: int) -> CommitKey:
    return history.commit_by_id(state.db, id_).key
