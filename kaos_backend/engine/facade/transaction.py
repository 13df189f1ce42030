"""`transaction_v2.API`, and how other services take part in transactions.

A call that can be part of a transaction goes through `Transactions.call`: under a `pach-transaction` header
it is appended to that transaction (after a dry run of the whole list), else it runs at once in one of its
own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import betterproto
import grpc
from betterproto.lib.google.protobuf import Empty
from pachyderm_sdk.api import transaction

from kaos_backend.engine.errors import EngineError, InvalidArgument
from kaos_backend.engine.facade import verbs
from kaos_backend.engine.facade.convert import stamp
from kaos_backend.engine.facade.rpc import Handlers, unary
from kaos_backend.engine.store.store import Store, Txn
from kaos_backend.engine.store.transactions import OpenTransaction, OpenTransactions

Runner = Callable[[Txn, Any], transaction.TransactionResponse]
"""Runs one arm of a TransactionRequest (it gets the arm's message) inside a write transaction."""

_HEADER = "pach-transaction"
# Transactions whose requests are kept parsed.
_REMEMBERED = 8
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
        self._open = OpenTransactions(store)
        # What the requests of open ones were parsed to; requests are only ever added to a transaction.
        self._parsed: dict[str, list[transaction.TransactionRequest]] = {}
        self._parsed_lock = threading.Lock()
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
            runner = self.runners.get(arm)
            if runner is None:
                raise InvalidArgument(f"{arm} cannot be part of a transaction here")
            try:
                responses.append(runner(txn, getattr(request, arm)))
            except EngineError as error:
                error.message = f"error running request {number} of {len(requests)}: {error.message}"
                raise
        return responses

    def _append(self, id_: str, request: transaction.TransactionRequest) -> transaction.TransactionResponse:
        while True:
            seen = self._open.inspect(id_)
            requests = [*self._requests(seen), request]
            with self._store.write(set_id=id_, dry_run=True) as txn:
                responses = self.run(txn, requests)
            response: transaction.TransactionResponse = responses[-1]
            if self._open.append(seen, bytes(request), bytes(response)):
                self._remember(id_, requests)
                return response

    def _requests(self, opened: OpenTransaction) -> list[transaction.TransactionRequest]:
        known = self._parsed.get(opened.id, [])[: len(opened.requests)]
        return [*known, *_parse(opened.requests[len(known) :])]

    def _remember(self, id_: str, requests: list[transaction.TransactionRequest]) -> None:
        """Those of a transaction that has waited while others went on are parsed again at need."""
        with self._parsed_lock:
            self._parsed.pop(id_, None)
            if len(self._parsed) >= _REMEMBERED:
                del self._parsed[next(iter(self._parsed))]
            self._parsed[id_] = requests

    def _forget(self, id_: str) -> None:
        with self._parsed_lock:
            self._parsed.pop(id_, None)

    def start(self) -> str:
        return self._open.start()

    def finish(self, id_: str) -> transaction.TransactionInfo:
        """Run the stored requests for good and forget the record. On failure the transaction stays open."""
        with self._store.write(set_id=id_) as txn:
            taken = self._open.take(txn, id_)
            requests = self._requests(taken)
            responses = self.run(txn, requests)
        self._forget(id_)
        return _info(id_, requests, responses, taken.started_us, taken.version)

    def batch(self, requests: Sequence[transaction.TransactionRequest]) -> transaction.TransactionInfo:
        with self._store.write() as txn:
            responses = self.run(txn, requests)
        return _info(txn.set_id, requests, responses, txn.now_us, len(requests))

    def inspect(self, id_: str) -> transaction.TransactionInfo:
        return _open_info(self._open.inspect(id_))

    def list_all(self) -> list[transaction.TransactionInfo]:
        return [_open_info(one) for one in self._open.list_all()]

    def delete(self, id_: str) -> None:
        self._open.delete(id_)
        self._forget(id_)

    def delete_all(self) -> None:
        self._open.delete_all()
        with self._parsed_lock:
            self._parsed.clear()


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


def _parse(requests: Sequence[bytes]) -> list[transaction.TransactionRequest]:
    return [transaction.TransactionRequest.FromString(one) for one in requests]


def _open_info(opened: OpenTransaction) -> transaction.TransactionInfo:
    responses = [transaction.TransactionResponse.FromString(one) for one in opened.responses]
    return _info(opened.id, _parse(opened.requests), responses, opened.started_us, opened.version)


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
