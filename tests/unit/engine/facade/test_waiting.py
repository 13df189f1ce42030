"""Calls that wait: how many there may be, and what each of them costs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

import grpc
import pytest
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

from kaos_backend.engine.errors import TooManyCalls
from kaos_backend.engine.facade import pace, rpc
from kaos_backend.engine.facade.errors import Cancelled
from kaos_backend.engine.store.store import Store
from kaos_formats import reasons

from .conftest import TOKEN


class Context:
    """The part of a call's context that waiting needs."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []
        self.active = True

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.callbacks.append(callback)
        return self.active

    def is_active(self) -> bool:
        return self.active

    def end(self) -> None:
        self.active = False
        for callback in self.callbacks:
            callback()


def wait(store: Store, context: Context, check: Callable[[], Any]) -> Any:
    return rpc.wait_until(store, cast(grpc.ServicerContext, context), check)


def second_time() -> Callable[[], bool | None]:
    answers = iter((None, True))
    return lambda: next(answers)


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> threading.BoundedSemaphore:
    """Room for two waiting calls."""
    room = threading.BoundedSemaphore(2)
    monkeypatch.setattr(pace, "_places", room)
    monkeypatch.setattr(rpc, "_POLL_S", 0.01)
    return room


def test_a_stream_registers_once_however_often_it_waits(
    store: Store, places: threading.BoundedSemaphore
) -> None:
    context = Context()
    assert wait(store, context, second_time())
    registered = len(context.callbacks)
    for _ in range(10):
        assert wait(store, context, second_time())
    assert len(context.callbacks) == registered
    context.end()
    with pytest.raises(ValueError, match="released too many times"):
        places.release()


def test_what_need_not_wait_takes_no_place(store: Store, places: threading.BoundedSemaphore) -> None:
    for _ in range(2):
        wait(store, (context := Context()), second_time())
        assert context.callbacks
    assert wait(store, Context(), lambda: True)


def test_a_call_that_is_gone_keeps_no_place(store: Store, places: threading.BoundedSemaphore) -> None:
    for _ in range(5):
        context = Context()
        context.active = False
        with pytest.raises(Cancelled):
            wait(store, context, second_time())


def test_too_many_are_refused_until_one_ends(store: Store, places: threading.BoundedSemaphore) -> None:
    contexts = [Context(), Context()]
    for context in contexts:
        wait(store, context, second_time())
    with pytest.raises(TooManyCalls, match="too many calls that wait or stream"):
        wait(store, Context(), second_time())
    contexts[0].end()
    assert wait(store, Context(), second_time())


def test_the_refusal_reaches_the_client_and_others_are_served(
    client: Client, address: tuple[str, int], places: threading.BoundedSemaphore
) -> None:
    host, port = address
    repo = pfs.Repo(name="a", type="user", project=pfs.Project(name="default"))
    client.pfs.create_repo(repo=repo)
    commit = client.pfs.start_commit(branch=pfs.Branch(repo=repo, name="master"))
    ended: list[object] = []

    def waiting() -> None:
        other = Client(host=host, port=port, auth_token=TOKEN)
        try:
            ended.append(other.pfs.inspect_commit(commit=commit, wait=pfs.CommitState.FINISHED))
        except grpc.RpcError as error:
            ended.append((error.code(), (reasons.KEY, reasons.TOO_MANY_CALLS) in error.trailing_metadata()))

    threads = [threading.Thread(target=waiting) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(500):
        if ended:
            break
        threading.Event().wait(0.01)
    assert ended == [(grpc.StatusCode.RESOURCE_EXHAUSTED, True)]
    client.pfs.finish_commit(commit=commit)
    for thread in threads:
        thread.join(5)
    assert len(ended) == 3
    # Their places are free again.
    for _ in range(500):
        if places._value == 2:  # type: ignore[attr-defined]
            break
        threading.Event().wait(0.01)
    assert places._value == 2  # type: ignore[attr-defined]
