"""The project and repo verbs, and the metadata of all that has metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping

from kaos_backend.engine.errors import AlreadyExists, FailedPrecondition, NotFound, Unknown
from kaos_backend.engine.store.model import (
    META_REPO,
    SPEC_REPO,
    USER_REPO,
    BranchKey,
    CommitKey,
    RepoKey,
)
from kaos_backend.engine.store.names import check_project_name, check_repo_key
from kaos_backend.engine.store.versions import branches, history, refs
from kaos_backend.engine.store.versions.state import WriteState


def create_project(state: WriteState, name: str, description: str = "", update: bool = False) -> None:
    check_project_name(name)
    row = state.db.execute("SELECT id FROM projects WHERE name=?", (name,)).fetchone()
    if row is None:
        state.db.execute(
            "INSERT INTO projects (name, description, created_us) VALUES (?,?,?)",
            (name, description, state.now_us),
        )
    elif not update:
        raise AlreadyExists(f"project {name} already exists")
    else:
        state.db.execute("UPDATE projects SET description=? WHERE id=?", (description, row["id"]))


def delete_project(state: WriteState, name: str, force: bool = False) -> None:
    try:
        id_ = refs.project_id(state.db, name)
    except NotFound:
        if force:
            return
        raise
    held = refs.list_repos(state.db, projects=[name])
    if held and not force:
        raise FailedPrecondition(f"cannot delete project {name}: repo {held[0].key} still exists")
    for repo in held:
        delete_repo(state, repo.key, force=True)
    state.db.execute("DELETE FROM projects WHERE id=?", (id_,))


def create_repo(state: WriteState, key: RepoKey, description: str = "", update: bool = False) -> None:
    check_repo_key(key)
    project = refs.project_id(state.db, key.project)
    existing = refs.find_repo_id(state.db, key)
    if existing is not None:
        if not update:
            raise AlreadyExists(f"repo {key} already exists")
        state.db.execute("UPDATE repos SET description=? WHERE id=?", (description, existing))
        return
    if key.type != USER_REPO:
        refs.repo_id(state.db, RepoKey(key.project, key.name))
    state.db.execute(
        "INSERT INTO repos (project_id, name, type, description, created_us) VALUES (?,?,?,?,?)",
        (project, key.name, key.type, description, state.now_us),
    )


def delete_repo(state: WriteState, key: RepoKey, force: bool = False) -> bool:
    """Delete a repo with its commits and, for a user repo, its spec and meta siblings.

    Returns whether there was one.

    Raises:
        Unknown: without `force`, a branch of another repo depends on one of this repo.
    """
    repo_id = refs.find_repo_id(state.db, key)
    if repo_id is None:
        return False
    state.before_repo_delete(key, force)
    doomed = [repo_id]
    if key.type == USER_REPO:
        for type_ in (SPEC_REPO, META_REPO):
            sibling = refs.find_repo_id(state.db, RepoKey(key.project, key.name, type_))
            if sibling is not None:
                doomed.append(sibling)
    if not force:
        _refuse_needed(state, doomed)
    for id_ in doomed:
        _remove(state, id_)
    return True


def _refuse_needed(state: WriteState, doomed: list[int]) -> None:
    for repo_id in doomed:
        for row in state.db.execute("SELECT id FROM branches WHERE repo_id=?", (repo_id,)).fetchall():
            for other in refs.direct_subvenance(state.db, row[0]):
                owner = state.db.execute("SELECT repo_id FROM branches WHERE id=?", (other,)).fetchone()[0]
                if owner not in doomed:
                    here, there = refs.branch_key(state.db, row[0]), refs.branch_key(state.db, other)
                    raise Unknown(
                        f"branch {here} cannot be deleted: it is in the direct provenance of {there}"
                    )


def _remove(state: WriteState, repo_id: int) -> None:
    db = state.db
    ids = [row[0] for row in db.execute("SELECT id FROM commits WHERE repo_id=?", (repo_id,))]
    if ids:
        state.before_drop([history.commit_by_id(db, id_).key for id_ in ids])
    branches.remove_rows(
        state, [row[0] for row in db.execute("SELECT id FROM branches WHERE repo_id=?", (repo_id,))]
    )
    gone = [(id_,) for id_ in ids]
    db.executemany("DELETE FROM commit_provenance WHERE commit_id=?", gone)
    db.executemany("DELETE FROM commit_provenance WHERE from_id=?", gone)
    db.execute("UPDATE commits SET parent_id=NULL WHERE repo_id=?", (repo_id,))
    db.execute("DELETE FROM commits WHERE repo_id=?", (repo_id,))
    db.execute("DELETE FROM repos WHERE id=?", (repo_id,))
    state.opened[:] = [id_ for id_ in state.opened if id_ not in set(ids)]


def make_cluster_id(state: WriteState, new_id: str) -> str:
    """The store's id, which is `new_id` from now on if it has none."""
    state.db.execute("INSERT OR IGNORE INTO cluster (key, value) VALUES ('id', ?)", (new_id,))
    return refs.cluster_value(state.db, "id") or new_id


def set_metadata(
    state: WriteState, target: str | RepoKey | BranchKey | CommitKey | None, metadata: Mapping[str, str]
) -> None:
    """Replace the metadata of a project (by name), repo, branch or commit; None is the cluster."""
    text = json.dumps(dict(metadata), sort_keys=True)
    db = state.db
    if target is None:
        db.execute("INSERT OR REPLACE INTO cluster (key, value) VALUES ('metadata', ?)", (text,))
    elif isinstance(target, str):
        db.execute("UPDATE projects SET metadata=? WHERE id=?", (text, refs.project_id(db, target)))
    elif isinstance(target, RepoKey):
        db.execute("UPDATE repos SET metadata=? WHERE id=?", (text, refs.repo_id(db, target)))
    elif isinstance(target, BranchKey):
        db.execute(
            "UPDATE branches SET metadata=?, updated_us=? WHERE id=?",
            (text, state.now_us, refs.branch_id(db, target)),
        )
    else:
        db.execute(
            "UPDATE commits SET metadata=?, updated_us=? WHERE id=?",
            (text, state.now_us, history.require_commit_row(db, target)["id"]),
        )
