"""Ports that lead to other ports."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from kaos_backend.engine.jobs.run.forward import HOST, forwarding


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def read_all(connection: socket.socket) -> bytes:
    found = bytearray()
    while data := connection.recv(1 << 16):
        found += data
    return bytes(found)


@pytest.fixture
def behind() -> Iterator[int]:
    """A server that answers with what it was sent, once it has all of it."""
    with closing(socket.create_server((HOST, 0))) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                # Some test breaks its connection off.
                with connection, suppress(OSError):
                    connection.sendall(read_all(connection))

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def test_bytes_and_ends_go_both_ways(behind: int) -> None:
    sent = os.urandom(3_000_000)
    port = free_port()
    with forwarding(port, lambda: (HOST, behind)):
        for _ in range(2):
            with closing(socket.create_connection((HOST, port))) as client:
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)
                assert read_all(client) == sent


def test_neither_way_waits_for_the_other() -> None:
    """Both sides send more than all buffers hold before they read."""
    sent = bytes(20_000_000)
    port = free_port()
    answers: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        reader = threading.Thread(target=lambda: answers.append(read_all(connection)))
        with connection:
            reader.start()
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            reader.join()

    with closing(socket.create_server((HOST, 0))) as server:
        other = threading.Thread(target=lambda: talk(server.accept()[0]))
        other.start()
        with forwarding(port, lambda: (HOST, server.getsockname()[1])):
            talk(socket.create_connection((HOST, port)))
            other.join()
    assert [len(answer) for answer in answers] == [len(sent)] * 2


@pytest.mark.parametrize("nowhere", [None, (HOST, 1)])
def test_what_nothing_is_behind_is_closed(nowhere: tuple[str, int] | None) -> None:
    port = free_port()
    with forwarding(port, lambda: nowhere), closing(socket.create_connection((HOST, port))) as client:
        assert read_all(client) == b""


def test_its_end_ends_connections_and_frees_the_port(behind: int) -> None:
    port = free_port()
    with forwarding(port, lambda: (HOST, behind)):
        client = socket.create_connection((HOST, port))
        client.sendall(b"x")
    with closing(client):
        client.settimeout(10)
        with suppress(ConnectionResetError):
            assert client.recv(1) in (b"", b"x")
    with forwarding(port, lambda: (HOST, behind)):
        pass


def test_a_port_that_is_taken() -> None:
    with closing(socket.create_server((HOST, 0))) as server:
        taken: int = server.getsockname()[1]
        with pytest.raises(OSError, match="in use"), forwarding(taken, lambda: None):
            pass
