"""Transactions through the SDK: one commit set, dry runs that leave nothing, all or nothing at the end."""

from __future__ import annotations

from contextlib import suppress

import grpc
import pytest
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps, transaction

from kaos_backend.engine.errors import InvalidArgument
from kaos_backend.engine.facade.transaction import Transactions
from kaos_backend.engine.store.store import Store

from .refusals import refused

DATA = pfs.Repo.from_uri("data")
HYPER = pfs.Repo.from_uri("hyper")
OUT = pfs.Branch.from_uri("out@master")


def master(repo: pfs.Repo) -> pfs.Branch:
    return pfs.Branch(repo=repo, name="master")


@pytest.fixture(autouse=True)
def repos(client: Client) -> None:
    for name in ("data", "hyper", "out"):
        client.pfs.create_repo(repo=pfs.Repo(name=name))
    client.pfs.create_branch(branch=OUT, provenance=[master(DATA), master(HYPER)])
    client.pfs.finish_commit(commit=client.pfs.inspect_branch(branch=OUT).head, force=True)


def test_one_transaction_is_one_commit_set(client: Client) -> None:
    before = len(list(client.pfs.list_commit(repo=OUT.repo)))
    with client.transaction.transaction() as txn:
        data = client.pfs.start_commit(branch=master(DATA))
        hyper = client.pfs.start_commit(branch=master(HYPER))
        assert data.id == hyper.id == txn.id
        assert not client.pfs.commit_exists(data), "nothing shows before the end"
    assert client.pfs.commit_exists(data)
    outs = list(client.pfs.list_commit(repo=OUT.repo))
    assert len(outs) == before + 1
    assert outs[0].commit.id == txn.id
    assert {one.id for one in outs[0].direct_provenance} == {txn.id}
    client.pfs.put_file_from_bytes(commit=data, path="/a", data=b"filled afterwards")
    client.pfs.finish_commit(commit=data)
    assert not client.transaction.transaction_exists(txn)


def test_requests_see_the_ones_before_them(client: Client) -> None:
    new = pfs.Repo.from_uri("new")
    with client.transaction.transaction():
        client.pfs.create_repo(repo=new)
        commit = client.pfs.start_commit(branch=master(new))
        client.pfs.finish_commit(commit=commit)
        assert not client.pfs.repo_exists(new)
    assert client.pfs.inspect_commit(commit=commit).finished.year > 1970


def test_a_refused_request_is_not_kept(client: Client) -> None:
    with client.transaction.transaction() as txn:
        client.pfs.create_repo(repo=pfs.Repo.from_uri("new"))
        with refused(grpc.StatusCode.ALREADY_EXISTS, "error running request 2 of 2: repo default/data"):
            client.pfs.create_repo(repo=DATA)
        client.pfs.start_commit(branch=master(DATA))
        with refused(grpc.StatusCode.UNKNOWN, "inconsistent dependencies"):
            client.pfs.start_commit(branch=pfs.Branch(repo=DATA, name="dev"))
        info = client.transaction.inspect_transaction(transaction=txn)
        assert (len(info.requests), len(info.responses), info.version) == (2, 2, 2)
        assert info.responses[1].commit.id == txn.id
        assert [one.transaction.id for one in client.transaction.list_transaction().transaction_info] == [
            txn.id
        ]
    assert client.pfs.repo_exists(pfs.Repo.from_uri("new"))


def test_a_bug_of_a_request_is_not_taken_for_a_request_that_is_unknown(store: Store) -> None:
    def broken(_txn: object, _request: object) -> transaction.TransactionResponse:
        raise KeyError("of the runner's own")

    request = transaction.TransactionRequest(create_repo=pfs.CreateRepoRequest(repo=DATA))
    with store.write() as txn, pytest.raises(KeyError, match="of the runner"):
        Transactions(store, {"create_repo": broken}).run(txn, [request])
    request = transaction.TransactionRequest(stop_job=pps.StopJobRequest(reason="no"))
    with store.write() as txn, pytest.raises(InvalidArgument, match="cannot be part of a transaction"):
        Transactions(store).run(txn, [request])


def test_requests_are_parsed_once_and_by_another_engine_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(name: str) -> transaction.TransactionRequest:
        request = pfs.CreateRepoRequest(repo=pfs.Repo.from_uri(name))
        return transaction.TransactionRequest(create_repo=request)

    transactions = Transactions(store)
    ids = [transactions.start() for _ in range(20)]
    with monkeypatch.context() as patched:
        patched.setattr(transaction.TransactionRequest, "FromString", None)
        for name in ("one", "two", "three"):
            transactions._append(ids[0], create(name))
    for id_ in ids[1:]:
        # So many that the first one is not kept parsed.
        transactions._append(id_, create("other"))
    transactions._append(ids[0], create("four"))
    killed = Transactions(store)
    assert [one.create_repo.repo.name for one in killed.finish(ids[0]).requests] == [
        "one", "two", "three", "four",
    ]  # fmt: skip
    assert {"one", "four"} <= {repo.key.name for repo in store.list_repos()}


def test_an_error_in_the_block_leaves_nothing(client: Client) -> None:
    with suppress(KeyError), client.transaction.transaction() as txn:
        client.pfs.create_repo(repo=pfs.Repo.from_uri("new"))
        raise KeyError
    assert not client.pfs.repo_exists(pfs.Repo.from_uri("new"))
    assert not client.transaction.transaction_exists(txn)
    with refused(grpc.StatusCode.NOT_FOUND, "not found"):
        client.transaction.delete_transaction(transaction=txn)


def test_what_others_did_meanwhile_is_noticed_at_the_end(client: Client, address: tuple[str, int]) -> None:
    other = Client(host=address[0], port=address[1], auth_token=client.auth_token)
    txn = client.transaction.start_transaction()
    client.pfs.create_repo(repo=pfs.Repo.from_uri("new"))
    other.pfs.create_repo(repo=pfs.Repo.from_uri("new"))
    with refused(grpc.StatusCode.ALREADY_EXISTS, "error running request 1 of 1"):
        client.transaction.finish_transaction(transaction=txn)
    assert client.transaction.transaction_exists(txn), "it stays open"
    client.transaction.delete_transaction(transaction=txn)


def test_the_empty_header_after_finishing_is_no_transaction(client: Client) -> None:
    txn = client.transaction.start_transaction()
    client.transaction.finish_transaction(transaction=txn)
    assert client.transaction_id == ""
    client.pfs.create_repo(repo=pfs.Repo.from_uri("new"))
    assert client.pfs.repo_exists(pfs.Repo.from_uri("new"))


def test_a_batch(client: Client) -> None:
    info = client.transaction.batch_transaction(
        requests=[
            transaction.TransactionRequest(start_commit=pfs.StartCommitRequest(branch=master(DATA))),
            transaction.TransactionRequest(start_commit=pfs.StartCommitRequest(branch=master(HYPER))),
        ]
    )
    assert [one.commit.id for one in info.responses] == [info.transaction.id] * 2
    assert client.pfs.inspect_branch(branch=OUT).head.id == info.transaction.id
    assert client.transaction.list_transaction().transaction_info == []


def test_flipping_staged_bundles(client: Client) -> None:
    """Recipe B of the reference: complete commits on staging branches, then the heads move together."""
    staged = {}
    for repo in (DATA, HYPER):
        with client.pfs.commit(branch=pfs.Branch(repo=repo, name="staging")) as commit:
            commit.put_file_from_bytes("/x", b"staged")
        staged[repo.name] = commit
    with client.transaction.transaction() as txn:
        for repo in (DATA, HYPER):
            client.pfs.create_branch(branch=master(repo), head=staged[repo.name])
    for repo in (DATA, HYPER):
        assert client.pfs.inspect_branch(branch=master(repo)).head.id == staged[repo.name].id
        named = client.pfs.inspect_commit(commit=pfs.Commit(repo=repo, id=txn.id))
        assert named.commit.id == staged[repo.name].id
    head = client.pfs.inspect_commit(commit=client.pfs.inspect_branch(branch=OUT).head)
    assert head.commit.id == txn.id
    assert {one.id for one in head.direct_provenance} == {one.id for one in staged.values()}


def test_an_unknown_transaction_is_not_found(client: Client) -> None:
    client.transaction_id = "0" * 32
    with refused(grpc.StatusCode.NOT_FOUND, "transactions"):
        client.pfs.create_repo(repo=pfs.Repo.from_uri("new"))
    assert client.pfs.repo_exists(DATA), "reads do not care"
