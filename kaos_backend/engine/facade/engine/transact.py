"""`kaos_v1.Engine`: new commits, their content and pipelines, in one transaction and one call.

Pachyderm's protocol takes a call for each, writes files outside of transactions only, and has a transaction
whose calls are appended run from its beginning at each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import grpc

from kaos_backend.engine.errors import InvalidArgument, NotFound
from kaos_backend.engine.facade.rpc import Handlers, unary
from kaos_backend.engine.jobs.service import Jobs
from kaos_backend.engine.jobs.spec.spec import parse_json
from kaos_backend.engine.store.model import BranchKey, CommitKey, RepoKey
from kaos_backend.engine.store.names import FILESETS_REPO
from kaos_backend.engine.store.store import Txn, Upload
from kaos_backend.engine.store.trees.edit import Operation
from kaos_formats import kaos_v1


class TransactService:
    """The part of the service that changes several things together."""

    name = kaos_v1.SERVICE

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._store = jobs.store

    def handlers(self) -> Handlers:
        return {"Transact": unary(self._transact, kaos_v1.TransactRequest)}

    def _transact(self, request: kaos_v1.TransactRequest, _: grpc.ServicerContext) -> bytes:
        with self._store.upload() as upload:
            received = [self._received(upload, request.project, commit) for commit in request.commits]
            upload.seal()
            with self._store.write() as txn:
                for name in request.repos:
                    repo = RepoKey(request.project, name)
                    if txn.find_repo(repo) is None:
                        txn.create_repo(repo)
                for commit, changes in zip(request.commits, received, strict=True):
                    branch = BranchKey(RepoKey(request.project, commit.repo), commit.branch)
                    key = txn.start_commit(branch, description=commit.description)
                    if changes is not None:
                        txn.apply(key, upload, changes)
                        txn.finish_commit(key)
                        if error := txn.inspect_commit(key).error:
                            raise InvalidArgument(f"{key} can not be: {error}")
                for put in request.pipelines:
                    self._put(txn, put)
                for staged in request.staged:
                    _drop(txn, request.project, staged)
        return bytes(kaos_v1.TransactResponse(id=txn.set_id))

    def _received(
        self, upload: Upload, project: str, commit: kaos_v1.NewCommit
    ) -> Sequence[Operation] | None:
        if commit.changes is None:
            return None
        before = len(upload.operations)
        for change in commit.changes:
            if change.source is not None:
                source = self._source(project, change.source)
                upload.copy(change.path, "", source, change.source.path, "", append=False)
            elif change.data is not None:
                upload.add(change.path, "", change.data)
            else:
                upload.delete(change.path, "")
        upload.end_file()
        return upload.operations[before:]

    def _source(self, project: str, source: kaos_v1.Source) -> CommitKey | bytes | None:
        if source.repo == FILESETS_REPO:
            return self._store.filesets.get(source.commit).root
        return CommitKey(RepoKey(project, source.repo), source.commit)

    def _put(self, txn: Txn, put: kaos_v1.PutPipeline) -> None:
        creation = self._jobs.with_defaults(txn, parse_json(put.spec), update=True, reprocess=put.reprocess)
        self._jobs.create_pipeline(txn, creation)


def _drop(txn: Txn, project: str, staged: kaos_v1.Staged) -> None:
    # The branch goes first: dropping the head of a branch would leave a new empty commit in its place.
    branch = BranchKey(RepoKey(project, staged.repo), staged.branch)
    if txn.find_branch(branch) is not None:
        txn.delete_branch(branch)
    with suppress(NotFound):
        txn.drop_commit_set(staged.commit)
