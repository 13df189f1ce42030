"""The one SDK client: a channel to an engine that was replaced does not stay."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
import pytest
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

from kaos_backend.errors import KaosError
from kaos_backend.pachd import connection as connecting
from kaos_backend.pachd.connection import Connection
from kaos_backend.pachd.endpoint import Endpoint
from tests.support.waiting import eventually


class Moving:
    """An engine that can be told to be elsewhere."""

    def __init__(self, port: int) -> None:
        self.endpoint = Endpoint(f"127.0.0.1:{port}", "secret", 1, embedded=True)

    def move(self, port: int) -> None:
        self.endpoint = Endpoint(f"127.0.0.1:{port}", "secret", self.endpoint.generation + 1, embedded=True)

    def current(self) -> Endpoint:
        return self.endpoint

    def ensure(self) -> Endpoint:
        return self.endpoint


@pytest.fixture
def ports() -> Iterator[list[int]]:
    """Where two gRPC servers without services listen."""
    servers = [grpc.server(ThreadPoolExecutor(2)) for _ in range(2)]
    found = [server.add_insecure_port("127.0.0.1:0") for server in servers]
    for server in servers:
        server.start()
    yield found
    for server in servers:
        server.stop(0).wait(5)


def connected(port: int) -> int:
    """How many connections this process holds to a port, as the client."""
    return sum(bool(one.raddr) and one.raddr.port == port for one in psutil.Process().net_connections("tcp"))


def test_the_channel_to_an_engine_that_was_replaced_is_closed(ports: list[int]) -> None:
    first, second = ports
    engine = Moving(first)
    connection = Connection(engine)

    def ask() -> None:
        with pytest.raises(KaosError):
            connection.read(lambda client: client.pfs.inspect_repo(repo=None))

    ask()
    assert connected(first) == 1
    engine.move(second)
    ask()
    assert connected(second) == 1
    eventually(lambda: connected(first) == 0, timeout_s=10)


def test_a_channel_in_use_is_closed_with_its_last_call(ports: list[int]) -> None:
    first, second = ports
    engine = Moving(first)
    connection = Connection(engine)
    with connection.client() as early:
        engine.move(second)
        with connection.client() as late:
            assert early.address != late.address
        with pytest.raises(grpc.RpcError):
            early.pfs.inspect_repo(repo=None)
        assert connected(first) == 1
    eventually(lambda: connected(first) == 0, timeout_s=10)


def test_a_stream_that_the_garbage_collector_ends_while_another_client_is_made(
    ports: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = ports
    engine = Moving(first)
    connection = Connection(engine)
    made = connecting._connect

    def abandon() -> None:
        stream = connection.stream(lambda _: iter([1, 2]))
        assert next(stream) == 1
        held: list[object] = [stream]
        held.append(held)

    def collecting(endpoint: Endpoint) -> object:
        gc.collect()
        return made(endpoint)

    abandon()
    monkeypatch.setattr(connecting, "_connect", collecting)
    engine.move(second)
    with connection.client() as client:
        assert client.address.endswith(str(second))


def test_a_transaction_of_an_engine_that_has_gone_can_be_sent_again(ports: list[int]) -> None:
    engine = Moving(_nobody())
    connection, tries = Connection(engine), []

    def transact(client: Client) -> None:
        tries.append(engine.endpoint.address)
        engine.move(ports[0])
        stubs = connecting.in_transaction(client, "0" * 32)
        stubs.pfs.start_commit(branch=pfs.Branch(name="master"))

    # The other one is there, but has no such service.
    with pytest.raises(KaosError, match=r"(?i)method not found"):
        connection.write(transact)
    assert len(tries) == 2


def _nobody() -> int:
    """A port at which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
