"""Forgetting what a commit held: its files are gone for all who would read them; their space comes back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kaos_backend.engine.errors import CommitForgotten, Unknown
from kaos_backend.engine.store.check import findings
from kaos_backend.engine.store.model import BranchKey, CommitKey, RepoKey
from kaos_backend.engine.store.space.collect import collect
from kaos_backend.engine.store.store import Store, Txn

from .conftest import DATA, MASTER, content

OUT = BranchKey(RepoKey("default", "out"), "master")


@pytest.fixture
def commits(store: Store) -> list[CommitKey]:
    """data@master's, each with an output; the first is forgotten."""
    with store.write() as txn:
        txn.create_repo(OUT.repo)
        txn.create_branch(OUT, provenance=[MASTER])
        first = txn.inspect_branch(OUT).head
    with store.write() as txn:
        txn.finish_commit(first, force=True)
    made = []
    for number in range(3):
        with store.upload() as upload:
            upload.delete("/f", "")
            upload.add("/f", "", b"%d" % number * 100_000)
            upload.seal()
            with store.write() as txn:
                made.append(txn.start_commit(MASTER))
                txn.apply(made[-1], upload)
                txn.finish_commit(made[-1])
        with store.write() as txn:
            txn.finish_commit(CommitKey(OUT.repo, made[-1].id), force=True)
    with store.write() as txn:
        txn.forget_commit(made[0])
    return made


@pytest.mark.parametrize(
    "use",
    [
        lambda txn, key: txn.start_commit(BranchKey(DATA, "fork"), parent=key),
        lambda txn, key: txn.create_branch(BranchKey(DATA, "old"), head=key),
        lambda txn, key: txn.start_alike(CommitKey(OUT.repo, key.id), {}),
        lambda txn, key: txn.inspect_commit(key).root,
    ],
    ids=["fork", "branch", "another job", "read"],
)
def test_nothing_begins_with_it(
    store: Store, commits: list[CommitKey], use: Callable[[Txn, CommitKey], object]
) -> None:
    with pytest.raises(CommitForgotten, match="the commit is forgotten"), store.write() as txn:
        use(txn, commits[0])


def test_what_others_are_made_of_is_kept(store: Store, commits: list[CommitKey]) -> None:
    with pytest.raises(Unknown, match="is the head of branch master"), store.write() as txn:
        txn.forget_commit(commits[2])
    with store.write() as txn:
        opened = txn.start_commit(MASTER)
    # An output that waits for it, on another branch.
    with store.write() as txn:
        txn.create_branch(BranchKey(DATA, "next"), head=opened)
        txn.create_branch(MASTER, head=commits[1])
    with pytest.raises(Unknown, match="a commit that is still open is made of it"), store.write() as txn:
        txn.forget_commit(commits[2])
    with pytest.raises(Unknown, match="has not been finished"), store.write() as txn:
        txn.forget_commit(CommitKey(OUT.repo, opened.id))


def test_its_space_comes_back(store: Store, commits: list[CommitKey]) -> None:
    kept = content(store, commits[1])
    with store.read() as db:
        before = db.execute("SELECT count(*) FROM objects").fetchone()[0]
    [*_] = collect(store)
    with store.read() as db:
        after = db.execute("SELECT count(*) FROM objects").fetchone()[0]
    assert (before, after) == (3, 2)
    assert content(store, commits[1]) == kept
    assert findings(store) == []
    assert commits[0] in [one.key for one in store.list_commits(DATA)]
