"""The PFS requests that can be part of a transaction, each run inside a given write transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pachyderm_sdk.api import pfs, transaction

from kaos_backend.engine.errors import Unknown
from kaos_backend.engine.facade.convert import (
    branch_key,
    commit_given,
    commit_message,
    find_commit,
    repo_key,
    trigger_bytes,
)
from kaos_backend.engine.store.store import Txn

_NOTHING = transaction.TransactionResponse()


def create_repo(txn: Txn, request: pfs.CreateRepoRequest) -> transaction.TransactionResponse:
    txn.create_repo(repo_key(request.repo), request.description, request.update)
    return _NOTHING


def delete_repo(txn: Txn, request: pfs.DeleteRepoRequest) -> transaction.TransactionResponse:
    txn.delete_repo(repo_key(request.repo), request.force)
    return _NOTHING


def start_commit(txn: Txn, request: pfs.StartCommitRequest) -> transaction.TransactionResponse:
    parent = None
    if commit_given(request.parent):
        if not request.parent.repo.name and not request.parent.branch.repo.name:
            # A parent given by its id alone lies in the branch's repo.
            parent = txn.resolve_commit(repo_key(request.branch.repo), request.parent.id).key
        else:
            parent = find_commit(txn, request.parent).key
    key = txn.start_commit(branch_key(request.branch), parent, request.description)
    return transaction.TransactionResponse(commit=commit_message(key))


def finish_commit(txn: Txn, request: pfs.FinishCommitRequest) -> transaction.TransactionResponse:
    commit = find_commit(txn, request.commit)
    txn.finish_commit(commit.key, request.error, request.description or None, request.force)
    return _NOTHING


def squash_commit_set(txn: Txn, request: pfs.SquashCommitSetRequest) -> transaction.TransactionResponse:
    txn.squash_commit_set(request.commit_set.id)
    return _NOTHING


def create_branch(txn: Txn, request: pfs.CreateBranchRequest) -> transaction.TransactionResponse:
    key = branch_key(request.branch)
    head = None
    if commit_given(request.head) or request.head.branch.name:
        message = request.head
        if not message.repo.name and not message.branch.repo.name:
            message = pfs.Commit(repo=request.branch.repo, id=message.id or message.branch.name)
        if repo_key(message.repo if message.repo.name else message.branch.repo) != key.repo:
            raise Unknown(f"branch {key} and its head commit must belong to the same repo")
        head = find_commit(txn, message).key
    never = [
        branch_key(spec.branch) for spec in request.branch_propagation_specs if spec.propagation_spec.never
    ]
    provenance = [branch_key(source) for source in request.provenance]
    txn.create_branch(key, head, provenance, trigger_bytes(request.trigger), never)
    return _NOTHING


def delete_branch(txn: Txn, request: pfs.DeleteBranchRequest) -> transaction.TransactionResponse:
    txn.delete_branch(branch_key(request.branch), request.force)
    return _NOTHING


RUNNERS: dict[str, Callable[[Txn, Any], transaction.TransactionResponse]] = {
    "create_repo": create_repo,
    "delete_repo": delete_repo,
    "start_commit": start_commit,
    "finish_commit": finish_commit,
    "squash_commit_set": squash_commit_set,
    "create_branch": create_branch,
    "delete_branch": delete_branch,
}
