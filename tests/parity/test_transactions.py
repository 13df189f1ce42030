"""Transactions."""

from __future__ import annotations

from contextlib import suppress

import pytest
from pachyderm_sdk.api import pfs, transaction
from pachyderm_sdk.errors import InvalidTransactionOperation

from tests.parity.pachd import EXISTS, NO_ID, NOT_FOUND, UNKNOWN, Pachd, refused


class _Leave(Exception):
    pass


def test_a_transaction_is_one_commit_set(pachd: Pachd) -> None:
    """§9: everything it makes has the transaction's id, downstream too, once."""
    pachd.repo("data")
    pachd.repo("hyper")
    out = pachd.derived("out", "data", "hyper")
    before = len(list(pachd.client.pfs.list_commit(repo=out.repo)))
    with pachd.client.transaction.transaction() as txn:
        data, hyper = pachd.start("data"), pachd.start("hyper")
    assert data.id == hyper.id == txn.id == pachd.head(out).id
    assert len(list(pachd.client.pfs.list_commit(repo=out.repo))) == before + 1


def test_nothing_shows_before_the_end(pachd: Pachd) -> None:
    """§9: a dry run leaves no trace."""
    with pachd.client.transaction.transaction():
        pachd.repo("data")
        assert not pachd.client.pfs.repo_exists(pachd.named("data"))
    assert pachd.client.pfs.repo_exists(pachd.named("data"))


def test_requests_see_the_ones_before_them(pachd: Pachd) -> None:
    """§9: a commit in a repo of the same transaction."""
    with pachd.client.transaction.transaction():
        pachd.repo("data")
        commit = pachd.start("data")
        pachd.client.pfs.finish_commit(commit=commit)
    assert pachd.client.pfs.wait_commit(commit).error == ""


def test_a_refused_request_is_not_kept(pachd: Pachd) -> None:
    """§9: the error says which request; the others go through."""
    pachd.repo("old")
    with pachd.client.transaction.transaction() as txn:
        pachd.repo("new")
        with refused(EXISTS, "already exists"):
            pachd.repo("old")
        assert len(pachd.client.transaction.inspect_transaction(transaction=txn).requests) == 1
    assert pachd.client.pfs.repo_exists(pachd.named("new"))


def test_one_commit_a_repo_and_transaction(pachd: Pachd) -> None:
    """§5.4: a second one is `inconsistent dependencies`."""
    pachd.repo("data")
    with pachd.client.transaction.transaction():
        pachd.start("data")
        with refused(UNKNOWN, "inconsistent dependencies"):
            pachd.start("data", "dev")


def test_leaving_by_an_error_leaves_nothing(pachd: Pachd) -> None:
    """§9: DeleteTransaction; a second one is NOT_FOUND."""
    with suppress(_Leave), pachd.client.transaction.transaction() as txn:
        pachd.repo("data")
        raise _Leave
    assert not pachd.client.pfs.repo_exists(pachd.named("data"))
    assert not pachd.client.transaction.transaction_exists(txn)
    with refused(NOT_FOUND, "not found"):
        pachd.client.transaction.delete_transaction(transaction=txn)


def test_what_others_did_meanwhile_shows_at_the_end(pachd: Pachd) -> None:
    """§9: FinishTransaction fails, the transaction stays and can be deleted."""
    other = pachd.another_client()
    txn = pachd.client.transaction.start_transaction()
    pachd.repo("data")
    other.pfs.create_repo(repo=pachd.named("data"))
    with refused(EXISTS):
        pachd.client.transaction.finish_transaction(transaction=txn)
    assert txn.id in {t.transaction.id for t in other.transaction.list_transaction().transaction_info}
    other.transaction.delete_transaction(transaction=txn)


def test_the_header_of_an_unknown_transaction(pachd: Pachd) -> None:
    """§9: writes are NOT_FOUND, reads do not care."""
    pachd.repo("data")
    pachd.client.transaction_id = NO_ID
    with refused(NOT_FOUND):
        pachd.repo("new")
    assert pachd.client.pfs.repo_exists(pachd.named("data"))


def test_a_batch_leaves_nothing_behind(pachd: Pachd) -> None:
    """§9: BatchTransaction runs a list at once."""
    pachd.repo("data")
    pachd.repo("hyper")
    requests = [
        transaction.TransactionRequest(start_commit=pfs.StartCommitRequest(branch=pachd.branch(name)))
        for name in ("data", "hyper")
    ]
    info = pachd.client.transaction.batch_transaction(requests=requests)
    assert {response.commit.id for response in info.responses} == {info.transaction.id}
    assert pachd.head(pachd.branch("data")).id == pachd.head(pachd.branch("hyper")).id == info.transaction.id
    with refused(NOT_FOUND):
        pachd.client.transaction.inspect_transaction(transaction=info.transaction)


def test_a_batch_is_all_or_nothing(pachd: Pachd) -> None:
    """§9: one database transaction."""
    pachd.repo("data")
    requests = [
        transaction.TransactionRequest(create_repo=pfs.CreateRepoRequest(repo=pachd.named("new"))),
        transaction.TransactionRequest(create_repo=pfs.CreateRepoRequest(repo=pachd.named("data"))),
    ]
    with refused(EXISTS):
        pachd.client.transaction.batch_transaction(requests=requests)
    assert not pachd.client.pfs.repo_exists(pachd.named("new"))


def test_files_are_not_written_in_transactions(pachd: Pachd) -> None:
    """§1.6: the SDK refuses it on the client's side."""
    pachd.repo("data")
    with pachd.client.transaction.transaction():
        commit = pachd.start("data")
        with pytest.raises(InvalidTransactionOperation):
            pachd.client.pfs.put_file_from_bytes(commit=commit, path="/f", data=b"1")


def test_open_together_fill_after(pachd: Pachd) -> None:
    """§9.1, recipe A, without pipelines: the commits of the set are filled outside of the transaction."""
    pachd.repo("data")
    pachd.repo("hyper")
    with pachd.client.transaction.transaction() as txn:
        commits = [pachd.start("data"), pachd.start("hyper")]
    for commit in commits:
        pachd.client.pfs.put_file_from_bytes(commit=commit, path="/f", data=b"1")
        pachd.client.pfs.finish_commit(commit=commit)
    infos = pachd.client.pfs.wait_commit_set(pfs.CommitSet(id=txn.id))
    assert {info.commit.repo.name for info in infos} == {"data", "hyper"}
    assert [pachd.files(commit) for commit in commits] == [{"/f": b"1"}] * 2


def test_stage_then_flip(pachd: Pachd) -> None:
    """§9.1, recipe B: heads of several repos move together; the set's id names the staged commits."""
    for repo in ("data", "hyper"):
        pachd.repo(repo)
    out = pachd.derived("out", "data", "hyper")
    staged = {repo: pachd.put(repo, {"/f": b"1"}, branch="staging") for repo in ("data", "hyper")}
    with pachd.client.transaction.transaction() as txn:
        for repo, commit in staged.items():
            pachd.client.pfs.create_branch(branch=pachd.branch(repo), head=commit)
    head = pachd.client.pfs.inspect_commit(commit=pachd.head(out))
    assert head.commit.id == txn.id
    assert {c.id for c in head.direct_provenance} == {c.id for c in staged.values()}
    for repo, commit in staged.items():
        assert pachd.client.pfs.inspect_commit(commit=pachd.commit(repo, txn.id)).commit.id == commit.id
