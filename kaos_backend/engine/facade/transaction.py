"""`transaction_v2.API`, and how other services take part in transactions.

A call that can be part of a transaction goes through `Transactions.call`: under a `pach-transaction` header
it is appended to that transaction (after a dry run of the whole list), else it runs at once in one of its
own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import betterproto
import grpc
from betterproto.lib.google.protobuf import Empty
from pachyderm_sdk.api import transaction

from kaos_backend.engine.errors import EngineError, InvalidArgument, NotFound
from kaos_backend.engine.facade import verbs
from kaos_backend.engine.facade.convert import stamp
from kaos_backend.engine.facade.rpc import Handlers, unary
from kaos_backend.engine.store.store import Store, Txn

Runner = Callable[[Txn, Any], transaction.TransactionResponse]
"""Runs one arm of a TransactionRequest (it gets the arm's message) inside a write transaction."""

_HEADER = "pach-transaction"
_ARMS = (
    "create_repo",
    "delete_repo",
    "start_commit",
    "finish_commit",
    "squash_commit_set",
    "create_branch",
    "delete_branch",
    "update_job_state",
    "stop_job",
    "create_pipeline_v2",
)


class Transactions:
    """Runs and keeps transactions. `extra` are the arms that other layers than PFS run."""

    def __init__(self, store: Store, extra: Mapping[str, Runner] | None = None) -> None:
        self._store = store
        self.runners: dict[str, Runner] = {**verbs.RUNNERS, **(extra or {})}

    def call(self, context: grpc.ServicerContext, arm: str, request: Any) -> transaction.TransactionResponse:
        """Run one request, or append it to the caller's open transaction."""
        id_ = header(context)
        if not id_:
            with self._store.write() as txn:
                return self.runners[arm](txn, request)
        return self._append(id_, transaction.TransactionRequest(**{arm: request}))

    def run(self, txn: Txn, requests: Sequence[transaction.TransactionRequest]) -> list[Any]:
        """Run a list of requests in order.

        Raises:
            EngineError: of the request that failed, its number added to the message.
        """
        responses = []
        for number, request in enumerate(requests, 1):
            arm = _arm(request)
            try:
                responses.append(self.runners[arm](txn, getattr(request, arm)))
            except KeyError as error:
                raise InvalidArgument(f"{arm} cannot be part of a transaction here") from error
            except EngineError as error:
                error.message = f"error running request {number} of {len(requests)}: {error.message}"
                raise
        return responses

    def _append(self, id_: str, request: transaction.TransactionRequest) -> transaction.TransactionResponse:
        with self._store.read() as db:
            requests, _, _, version = self._load(db, id_)
        requests.append(request)
        with self._store.write(set_id=id_, dry_run=True) as txn:
            responses = self.run(txn, requests)
        response: transaction.TransactionResponse = responses[-1]
        with self._store.write() as txn:
            _, _, _, now = self._load(txn.db, id_)
            if now != version:
                # Another call was appended in between; this one's dry run did not see it.
                again = True
            else:
                again = False
                txn.db.execute(
                    """INSERT INTO transaction_requests (transaction_id, position, request, response)
                       VALUES (?,?,?,?)""",
                    (id_, version, bytes(request), bytes(response)),
                )
                txn.db.execute("UPDATE transactions SET version=version+1 WHERE id=?", (id_,))
        return self._append(id_, request) if again else response

    def start(self) -> str:
        id_ = self._store.new_id()
        with self._store.write() as txn:
            txn.db.execute("INSERT INTO transactions (id, started_us) VALUES (?,?)", (id_, txn.now_us))
        return id_

    def finish(self, id_: str) -> transaction.TransactionInfo:
        """Run the stored requests for good and forget the record. On failure the transaction stays open."""
        with self._store.write(set_id=id_) as txn:
            requests, _, started_us, version = self._load(txn.db, id_)
            responses = self.run(txn, requests)
            _delete(txn, id_)
        return _info(id_, requests, responses, started_us, version)

    def batch(self, requests: Sequence[transaction.TransactionRequest]) -> transaction.TransactionInfo:
        with self._store.write() as txn:
            responses = self.run(txn, requests)
        return _info(txn.set_id, requests, responses, txn.now_us, len(requests))

    def inspect(self, id_: str) -> transaction.TransactionInfo:
        with self._store.read() as db:
            return _info(id_, *self._load(db, id_))

    def list_all(self) -> list[transaction.TransactionInfo]:
        with self._store.read() as db:
            ids = [row[0] for row in db.execute("SELECT id FROM transactions ORDER BY started_us DESC, id")]
            return [_info(id_, *self._load(db, id_)) for id_ in ids]

    def delete(self, id_: str) -> None:
        with self._store.write() as txn:
            self._load(txn.db, id_)
            _delete(txn, id_)

    def delete_all(self) -> None:
        with self._store.write() as txn:
            txn.db.execute("DELETE FROM transaction_requests")
            txn.db.execute("DELETE FROM transactions")

    @staticmethod
    def _load(
        db: Any, id_: str
    ) -> tuple[list[transaction.TransactionRequest], list[transaction.TransactionResponse], int, int]:
        """(requests, responses, started µs, version) of a transaction. NotFound when there is none."""
        row = db.execute("SELECT started_us, version FROM transactions WHERE id=?", (id_,)).fetchone()
        if row is None:
            raise NotFound(f"transactions {id_} not found")
        stored = db.execute(
            "SELECT request, response FROM transaction_requests WHERE transaction_id=? ORDER BY position",
            (id_,),
        ).fetchall()
        requests = [transaction.TransactionRequest.FromString(one["request"]) for one in stored]
        responses = [transaction.TransactionResponse.FromString(one["response"]) for one in stored]
        return requests, responses, row["started_us"], row["version"]


class TransactionService:
    """The seven RPCs."""

    name = "transaction_v2.API"

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def handlers(self) -> Handlers:
        t, api = self._transactions, transaction
        return {
            "BatchTransaction": unary(lambda r, _: t.batch(r.requests), api.BatchTransactionRequest),
            "StartTransaction": unary(
                lambda _r, _: api.Transaction(id=t.start()), api.StartTransactionRequest
            ),
            "InspectTransaction": unary(lambda r, _: t.inspect(_id(r)), api.InspectTransactionRequest),
            "DeleteTransaction": unary(self._delete, api.DeleteTransactionRequest),
            "ListTransaction": unary(
                lambda _r, _: api.TransactionInfos(transaction_info=t.list_all()), api.ListTransactionRequest
            ),
            "FinishTransaction": unary(lambda r, _: t.finish(_id(r)), api.FinishTransactionRequest),
            "DeleteAll": unary(self._delete_all, api.DeleteAllRequest),
        }

    def _delete(self, request: transaction.DeleteTransactionRequest, _: grpc.ServicerContext) -> Empty:
        self._transactions.delete(_id(request))
        return Empty()

    def _delete_all(self, _request: transaction.DeleteAllRequest, _: grpc.ServicerContext) -> Empty:
        self._transactions.delete_all()
        return Empty()


def header(context: grpc.ServicerContext) -> str:
    """The id of the caller's open transaction. The SDK sends an empty one after finishing: that is none."""
    for key, value in context.invocation_metadata():
        if key == _HEADER:
            return str(value)
    return ""


def _id(request: Any) -> str:
    if not request.transaction.id:
        raise InvalidArgument("validate request: transaction: value is required")
    return str(request.transaction.id)


def _arm(request: transaction.TransactionRequest) -> str:
    for arm in _ARMS:
        if betterproto.serialized_on_wire(getattr(request, arm)):
            return arm
    raise InvalidArgument("a transaction request is empty: exactly one of its fields must be set")


def _delete(txn: Txn, id_: str) -> None:
    txn.db.execute("DELETE FROM transaction_requests WHERE transaction_id=?", (id_,))
    txn.db.execute("DELETE FROM transactions WHERE id=?", (id_,))


def _info(
    id_: str,
    requests: Sequence[transaction.TransactionRequest],
    responses: Sequence[transaction.TransactionResponse],
    started_us: int,
    version: int,
) -> transaction.TransactionInfo:
    return transaction.TransactionInfo(
        transaction=transaction.Transaction(id=id_),
        requests=list(requests),
        responses=list(responses),
        started=stamp(started_us),
        version=version,
    )
