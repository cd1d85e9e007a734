"""Which connections of a process are ended: sockets of this one, as client and server."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from api.connections import Client, Connections
from tests.support.server import HOST
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

MOST = 100
MANY, ENOUGH = 75, 50


class Listening(NamedTuple):
    listener: socket.socket
    connections: Connections
    opened: contextlib.ExitStack

    def client(self, source: str = HOST) -> socket.socket:
        """A client of this address, with an accepted connection."""
        client = socket.create_connection((HOST, self.listener.getsockname()[1]), source_address=(source, 0))
        self.opened.enter_context(client)
        self.opened.enter_context(self.listener.accept()[0])
        return client


@pytest.fixture
def listening() -> Iterator[Listening]:
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.create_server((HOST, 0)))
        yield Listening(listener, Connections(listener.getsockname()[1], MOST), opened)


def name(client: socket.socket) -> Client:
    host, port = client.getsockname()
    return host, port


def ended(client: socket.socket) -> bool:
    """Whether the server ended it, as far as that has arrived here: on a busy machine the kernel takes a moment."""
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        return client.recv(1) == b""
    return False


def test_only_the_connection_of_this_client_ends(listening: Listening) -> None:
    first, second = listening.client(), listening.client()
    listening.connections.end(name(second))
    eventually(lambda: ended(second))
    assert not ended(first)
    listening.connections.end((HOST, 1))  # there is none
    assert not ended(first)


def test_nothing_ends_while_there_is_room(listening: Listening) -> None:
    clients = [listening.client() for _ in range(MANY)]
    assert [listening.connections.make_room() for _ in range(3)] == [False] * 3
    assert not any(map(ended, clients))


def test_the_oldest_idle_ones_make_room(listening: Listening) -> None:
    """None of a request that is worked on, and none that was not seen before."""
    clients = [listening.client() for _ in range(MANY + 1)]
    assert listening.connections.make_room()
    assert not any(map(ended, clients))
    late = listening.client()
    with listening.connections.in_use(name(clients[0])):
        assert listening.connections.make_room()
    eventually(lambda: sum(map(ended, clients)) == MANY + 2 - ENOUGH)
    assert not ended(clients[0])
    assert not ended(late)


def test_what_was_used_last_is_ended_last(listening: Listening) -> None:
    clients = [listening.client() for _ in range(MANY + 1)]
    listening.connections.make_room()
    used = clients[::2][:20]
    for client in used:
        with listening.connections.in_use(name(client)):
            pass
    listening.connections.make_room()
    eventually(lambda: any(map(ended, clients)))
    assert not any(map(ended, used))


def test_an_address_with_many_connections_loses_its_own(listening: Listening) -> None:
    honest = [listening.client("127.0.0.2") for _ in range(20)]
    attackers = [listening.client() for _ in range(MANY)]
    listening.connections.make_room()
    listening.connections.make_room()
    eventually(lambda: sum(map(ended, attackers)) == MANY + 20 - ENOUGH)
    assert not any(map(ended, honest))
