"""Clients that take or send nothing: what they hold, and for how long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

from kaos_backend.engine.facade import pace, rpc
from kaos_backend.engine.store.store import Store
from tests.support.waiting import eventually

from .conftest import TOKEN
from .refusals import refused

# More than a client takes in before anybody asks for it.
LARGE = bytes(40 << 20)
PART = bytes(1 << 20)
MASTER = pfs.Branch.from_uri("data@master")


class Stalled:
    """Calls that were begun and left alone, each as a client of its own would make it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._target = f"{address[0]}:{address[1]}"
        self._channels: list[grpc.Channel] = []
        self.calls: list[Any] = []
        self._end = threading.Event()

    def _method(self, kind: str, name: str) -> Callable[..., Any]:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 20 << 20)]
        channel = grpc.insecure_channel(self._target, options=options)
        self._channels.append(channel)
        method = getattr(channel, kind)(name, request_serializer=bytes, response_deserializer=bytes)

        def call(request: object) -> Any:
            begin = method.future if kind == "stream_unary" else method
            self.calls.append(begin(request, metadata=(("authn-token", TOKEN),)))
            return self.calls[-1]

        return call

    def download(self, file: pfs.File) -> Any:
        """Take the beginning of a file."""
        call = self._method("unary_stream", "/pfs_v2.API/GetFile")(pfs.GetFileRequest(file=file))
        next(call)
        return call

    def upload(self, branch: pfs.Branch) -> Any:
        """Send a beginning, which the server has taken when this returns."""
        taken = threading.Event()

        def messages() -> Iterator[pfs.ModifyFileRequest]:
            yield pfs.ModifyFileRequest(set_commit=pfs.Commit(branch=branch))
            yield pfs.ModifyFileRequest(add_file=pfs.AddFile(path="/half", raw=PART))
            taken.set()
            self._end.wait()

        call = self._method("stream_unary", "/pfs_v2.API/ModifyFile")(messages())
        assert taken.wait(30)
        return call

    def end(self) -> None:
        self._end.set()
        for call in self.calls:
            call.cancel()
        for channel in self._channels:
            channel.close()


@pytest.fixture
def stalled(address: tuple[str, int]) -> Iterator[Stalled]:
    calls = Stalled(address)
    yield calls
    calls.end()


@pytest.fixture
def large(client: Client) -> pfs.File:
    client.pfs.create_repo(repo=pfs.Repo.from_uri("data"))
    with client.pfs.commit(branch=MASTER) as commit:
        commit.put_file_from_bytes("/large", LARGE)
    return pfs.File(commit=commit, path="/large")


def served(client: Client) -> bool:
    """Whether a stream is not refused."""
    try:
        list(client.pfs.list_repo())
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return False
    return True


def test_many_slow_clients_do_not_stop_others(client: Client, stalled: Stalled, large: pfs.File) -> None:
    for _ in range(48):
        stalled.download(large)
        stalled.upload(pfs.Branch.from_uri("data@other"))
    with client.pfs.commit(branch=MASTER) as commit:
        commit.put_file_from_bytes("/new", b"1")
    assert client.pfs.pfs_file(pfs.File(commit=commit, path="/new")).read() == b"1"
    with client.transaction.transaction():
        client.pfs.create_repo(repo=pfs.Repo.from_uri("more"))
    assert {info.repo.name for info in client.pfs.list_repo()} == {"data", "more"}


def test_streams_are_refused_before_they_take_every_thread(
    client: Client, stalled: Stalled, large: pfs.File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "_places", threading.BoundedSemaphore(4))
    for _ in range(2):
        stalled.download(large)
        stalled.upload(MASTER)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls that wait or stream"):
        list(client.pfs.list_repo())
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls that wait or stream"):
        client.pfs.put_file_from_bytes(commit=pfs.Commit(branch=MASTER), path="/x", data=b"x")
    assert client.pfs.inspect_repo(repo=pfs.Repo.from_uri("data")).repo.name == "data", (
        "plain calls have threads"
    )
    stalled.end()
    eventually(lambda: served(client), "a place for another stream")


@pytest.mark.parametrize("kind", ["download", "upload"])
def test_a_client_that_stays_silent_is_let_go(
    client: Client,
    stalled: Stalled,
    large: pfs.File,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setattr(rpc, "_stalls", pace.Stalls(limit_s=0.2))
    monkeypatch.setattr(pace, "_places", threading.BoundedSemaphore(1))
    call = stalled.download(large) if kind == "download" else stalled.upload(MASTER)
    eventually(lambda: served(client), "a place for another stream")
    with refused(grpc.StatusCode.CANCELLED, ""):
        list(call) if kind == "download" else call.result(30)
    eventually(lambda: not list(store.objects.tmp.iterdir()), "what it had sent is removed")


def test_a_slow_client_gets_all_of_it(
    client: Client, stalled: Stalled, large: pfs.File, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(rpc, "_stalls", pace.Stalls(limit_s=60.0, monotonic=lambda: float(next(clock))))
    assert b"".join(part.value for part in client.pfs.get_file(file=large)) == LARGE
