"""Commits and commit sets of `pfs_v2.API`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
from betterproto.lib.google.protobuf import Empty
from pachyderm_sdk.api import pfs

from kaos_backend.engine.errors import InvalidArgument, NotFound, Unknown
from kaos_backend.engine.facade.convert import (
    at_most,
    commit_given,
    commit_info,
    commit_message,
    find_commit,
    micros,
    picked_commit,
    project_name,
    repo_key,
)
from kaos_backend.engine.facade.rpc import Handlers, server_stream, unary, wait_until
from kaos_backend.engine.facade.transaction import Transactions
from kaos_backend.engine.store.model import Commit, CommitKey
from kaos_backend.engine.store.store import Store

_MAX_COMMITS = 10_000
_MAX_DEPTH = 1000
_State = pfs.CommitState


class CommitRpcs:
    def __init__(self, store: Store, transactions: Transactions) -> None:
        self._store = store
        self._transactions = transactions

    def handlers(self) -> Handlers:
        return {
            "StartCommit": unary(self._start, pfs.StartCommitRequest),
            "FinishCommit": unary(self._finish, pfs.FinishCommitRequest),
            "ClearCommit": unary(self._clear, pfs.ClearCommitRequest),
            "InspectCommit": unary(self._inspect, pfs.InspectCommitRequest),
            "ListCommit": server_stream(self._list, pfs.ListCommitRequest),
            "SubscribeCommit": server_stream(self._subscribe, pfs.SubscribeCommitRequest),
            "SquashCommit": unary(self._squash_commit, pfs.SquashCommitRequest),
            "DropCommit": unary(self._drop_commit, pfs.DropCommitRequest),
            "InspectCommitSet": server_stream(self._inspect_set, pfs.InspectCommitSetRequest),
            "ListCommitSet": server_stream(self._list_sets, pfs.ListCommitSetRequest),
            "SquashCommitSet": unary(self._squash_set, pfs.SquashCommitSetRequest),
            "DropCommitSet": unary(self._drop_set, pfs.DropCommitSetRequest),
            "ForgetCommit": unary(self._forget, pfs.ForgetCommitRequest),
            "FindCommits": server_stream(self._find, pfs.FindCommitsRequest),
            "WalkCommitProvenance": server_stream(
                lambda request, _: self._walk(request, lambda commit: commit.provenance),
                pfs.WalkCommitProvenanceRequest,
            ),
            "WalkCommitSubvenance": server_stream(
                lambda request, _: self._walk(request, lambda commit: commit.subvenance),
                pfs.WalkCommitSubvenanceRequest,
            ),
        }

    def _start(self, request: pfs.StartCommitRequest, context: grpc.ServicerContext) -> pfs.Commit:
        return self._transactions.call(context, "start_commit", request).commit

    def _finish(self, request: pfs.FinishCommitRequest, context: grpc.ServicerContext) -> Empty:
        self._transactions.call(context, "finish_commit", request)
        return Empty()

    def _clear(self, request: pfs.ClearCommitRequest, _: grpc.ServicerContext) -> Empty:
        with self._store.write() as txn:
            txn.clear_commit(find_commit(txn, request.commit).key)
        return Empty()

    def _inspect(self, request: pfs.InspectCommitRequest, context: grpc.ServicerContext) -> pfs.CommitInfo:
        key = find_commit(self._store, request.commit).key
        return commit_info(self._await(key, _State(request.wait), context))

    def _await(self, key: CommitKey, state: pfs.CommitState, context: grpc.ServicerContext) -> Commit:
        """The commit once it has reached `state`.

        Raises:
            Unknown: it was deleted while we waited.
        """
        commit = self._store.inspect_commit(key)
        if self._reached(commit, state):
            return commit

        def check() -> Commit | None:
            found = self._store.find_commit(key)
            if found is None:
                raise Unknown(f"commit {key} was deleted")
            return found if self._reached(found, state) else None

        return wait_until(self._store, context, check)

    def _reached(self, commit: Commit, state: pfs.CommitState) -> bool:
        if state == _State.FINISHED:
            return commit.finished
        if state == _State.FINISHING:
            return commit.finishing_us is not None
        if state == _State.READY:
            found = [self._store.find_commit(key) for key in commit.provenance]
            return all(one is None or one.finished for one in found)
        return True

    def _list(self, request: pfs.ListCommitRequest, _: grpc.ServicerContext) -> Iterator[pfs.CommitInfo]:
        repo = repo_key(request.repo)
        from_ = find_commit(self._store, request.from_).key if commit_given(request.from_) else None
        to = find_commit(self._store, request.to).key if commit_given(request.to) else None
        kind = pfs.OriginKind(request.origin_kind)
        origin = "" if request.all or not kind else str(kind.name)
        started_us = micros(request.started_time)
        number = at_most(request.number)
        found = self._store.list_commits(
            repo,
            from_=from_,
            to=to,
            number=0 if started_us else number or 0,
            reverse=request.reverse,
            origin=origin,
        )
        if started_us:
            later = request.reverse
            found = [
                one
                for one in found
                if (one.started_us > started_us if later else one.started_us < started_us)
            ]
            found = found[:number]
        for commit in found:
            yield commit_info(commit)

    def _subscribe(
        self, request: pfs.SubscribeCommitRequest, context: grpc.ServicerContext
    ) -> Iterator[pfs.CommitInfo]:
        repo = repo_key(request.repo)
        self._store.inspect_repo(repo)
        kind = pfs.OriginKind(request.origin_kind)
        origin = "" if request.all or not kind else str(kind.name)
        known: set[CommitKey] = set()
        if commit_given(request.from_):
            start = find_commit(self._store, request.from_)
            known = {one.key for one in self._store.list_commits(repo, to=start.key)}

        position = 0

        def fresh() -> list[tuple[int, Commit]] | None:
            return self._store.commits_after(repo, position, request.branch, origin) or None

        while True:
            for made, commit in wait_until(self._store, context, fresh):
                position = made
                if commit.key not in known:
                    yield commit_info(self._await(commit.key, _State(request.state), context))

    def _squash_commit(
        self, request: pfs.SquashCommitRequest, _: grpc.ServicerContext
    ) -> pfs.SquashCommitResponse:
        with self._store.write() as txn:
            txn.squash_commit(find_commit(txn, request.commit).key, request.recursive)
        return pfs.SquashCommitResponse()

    def _drop_commit(self, request: pfs.DropCommitRequest, _: grpc.ServicerContext) -> pfs.DropCommitResponse:
        with self._store.write() as txn:
            txn.drop_commit(find_commit(txn, request.commit).key, request.recursive)
        return pfs.DropCommitResponse()

    def _forget(self, request: pfs.ForgetCommitRequest, _: grpc.ServicerContext) -> pfs.ForgetCommitResponse:
        with self._store.write() as txn:
            txn.forget_commit(picked_commit(txn, request.commit).key)
        return pfs.ForgetCommitResponse()

    # Commit sets

    def _inspect_set(
        self, request: pfs.InspectCommitSetRequest, context: grpc.ServicerContext
    ) -> Iterator[pfs.CommitInfo]:
        found = self._store.commit_set(request.commit_set.id)
        if not request.wait:
            yield from map(commit_info, found)
            return
        pending = {one.key for one in found}

        def finished() -> list[Commit] | None:
            now = [self._store.find_commit(key) for key in pending]
            if None in now:
                raise Unknown(f"a commit of commit set {request.commit_set.id} was deleted")
            done = [one for one in now if one is not None and one.finished]
            return done or None

        order = {one.key: position for position, one in enumerate(found)}
        while pending:
            for commit in sorted(wait_until(self._store, context, finished), key=lambda one: order[one.key]):
                pending.discard(commit.key)
                yield commit_info(commit)

    def _list_sets(
        self, request: pfs.ListCommitSetRequest, _: grpc.ServicerContext
    ) -> Iterator[pfs.CommitSetInfo]:
        project = project_name(request.project) if request.project.name else ""
        for set_id, commits in self._store.list_commit_sets(project):
            yield pfs.CommitSetInfo(
                commit_set=pfs.CommitSet(id=set_id), commits=[commit_info(one) for one in commits]
            )

    def _squash_set(self, request: pfs.SquashCommitSetRequest, context: grpc.ServicerContext) -> Empty:
        self._transactions.call(context, "squash_commit_set", request)
        return Empty()

    def _drop_set(self, request: pfs.DropCommitSetRequest, _: grpc.ServicerContext) -> Empty:
        if not request.commit_set.id:
            raise InvalidArgument("validate request: commit_set: value is required")
        with self._store.write() as txn:
            txn.drop_commit_set(request.commit_set.id)
        return Empty()

    # Searching

    def _find(
        self, request: pfs.FindCommitsRequest, _: grpc.ServicerContext
    ) -> Iterator[pfs.FindCommitsResponse]:
        if not commit_given(request.start):
            raise InvalidArgument("validate request: start: value is required")
        searched = 0
        commit = find_commit(self._store, request.start)
        while True:
            searched += 1
            parent = None if commit.parent is None else self._store.inspect_commit(commit.parent)
            before = None if parent is None else self._hash_at(parent, request.file_path)
            if self._hash_at(commit, request.file_path) != before:
                yield pfs.FindCommitsResponse(
                    found_commit=commit_message(commit.key), commits_searched=searched
                )
            if parent is None or (request.limit and searched >= request.limit):
                yield pfs.FindCommitsResponse(
                    last_searched_commit=commit_message(commit.key), commits_searched=searched
                )
                return
            commit = parent

    def _hash_at(self, commit: Commit, path: str) -> bytes | None:
        try:
            return self._store.stat(commit.root, path).hash
        except NotFound:
            return None

    def _walk(
        self, request: Any, edges: Callable[[Commit], tuple[CommitKey, ...]]
    ) -> Iterator[pfs.CommitInfo]:
        """Breadth first from each start, each commit once."""
        limit = request.max_commits or _MAX_COMMITS
        depth_limit = request.max_depth or _MAX_DEPTH
        for picker in request.start:
            queue = [(picked_commit(self._store, picker), 0)]
            seen = {queue[0][0].key}
            for count, (commit, depth) in enumerate(queue):
                if count >= limit:
                    break
                yield commit_info(commit)
                if depth < depth_limit:
                    new = [key for key in edges(commit) if key not in seen]
                    seen.update(new)
                    queue += [(self._store.inspect_commit(key), depth + 1) for key in new]
