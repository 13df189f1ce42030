"""Transactions of the SDK: a deploy's, and those that a backend has left behind."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from datetime import datetime

import grpc
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, transaction

from kaos_backend import errors
from kaos_backend.domain.models import AddFile, DeleteFile, FileOp, PutPipeline, Staged, StartCommit
from kaos_backend.pachd import convert, keys
from kaos_backend.pachd.connection import Connection, in_transaction
from kaos_backend.pachd.reading import unary
from kaos_formats import kaos_v1


def transact(
    connection: Connection, project: str, commits: Sequence[StartCommit], pipelines: Sequence[PutPipeline]
) -> str:
    """As ``port.Pachd.transact``."""

    def run(client: Client) -> str:
        # The generated stub: the SDK's own would put the transaction's id into the shared client.
        stub = transaction.ApiStub(client._channel)
        started = stub.start_transaction()
        stubs = in_transaction(client, started.id)
        try:
            for start in commits:
                branch = pfs.Branch(repo=keys.repo(project, start.repo), name=start.branch)
                stubs.pfs.start_commit(branch=branch, description=start.description)
            for put in pipelines:
                stubs.pps.create_pipeline_v2(
                    create_pipeline_request_json=json.dumps(put.spec), update=True, reprocess=put.reprocess
                )
            stub.finish_transaction(transaction=started)
        except grpc.RpcError:
            with contextlib.suppress(grpc.RpcError, ConnectionError):
                stub.delete_transaction(transaction=started)
            raise
        return str(started.id)

    return connection.write(run)


def transact_at_once(
    connection: Connection,
    project: str,
    repos: Sequence[str],
    commits: Sequence[StartCommit],
    pipelines: Sequence[PutPipeline],
    staged: Sequence[Staged],
) -> str:
    """As ``port.Pachd.transact_at_once``."""
    request = kaos_v1.TransactRequest(
        project=project,
        repos=list(repos),
        commits=[_commit(start) for start in commits],
        pipelines=[
            kaos_v1.PutPipeline(spec=json.dumps(put.spec), reprocess=put.reprocess) for put in pipelines
        ],
        staged=[kaos_v1.Staged(repo=s.repo, branch=s.branch, commit=s.commit) for s in staged],
    )
    return connection.write(unary("Transact", request, kaos_v1.TransactResponse)).id


def _commit(start: StartCommit) -> kaos_v1.NewCommit:
    changes = None if start.changes is None else list(map(_change, start.changes))
    return kaos_v1.NewCommit(
        repo=start.repo, branch=start.branch, description=start.description, changes=changes
    )


def _change(op: FileOp) -> kaos_v1.Change:
    if isinstance(op, AddFile):
        return kaos_v1.Change(path=op.path, data=op.data)
    if isinstance(op, DeleteFile):
        return kaos_v1.Change(path=op.path)
    source = kaos_v1.Source(repo=op.src_repo, commit=op.src_commit, path=op.src)
    return kaos_v1.Change(path=op.dst, source=source)


def delete_abandoned(connection: Connection, owner: str, before: datetime) -> int:
    """As ``port.Pachd.delete_abandoned_transactions``."""
    infos = connection.read(lambda c: transaction.ApiStub(c._channel).list_transaction()).transaction_info
    ours = [info.transaction for info in infos if convert.is_abandoned(info, owner, before)]
    for abandoned in ours:
        with contextlib.suppress(errors.NotFound):
            connection.write(
                lambda c, t=abandoned: transaction.ApiStub(c._channel).delete_transaction(transaction=t)  # type: ignore[misc]
            )
    return len(ours)
