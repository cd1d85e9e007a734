"""The connections of a server process: ASGI cannot end one, and its server does not end the oldest when many are open.

They are found among the files of the process, which the server opened and gives no access to (docs/adr/0016).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import Counter
from collections.abc import Iterator

Client = tuple[str, int]
"""its address and port"""


class Connections:
    """The connections to a port of this process, of which there may be `most` at the same time."""

    def __init__(self, port: int, most: int) -> None:
        self._port, self._many, self._enough = port, most * 3 // 4, most // 2
        self._files: dict[Client, int] = {}  # as far as known; what was used last is last
        self._in_use: set[Client] = set()

    @contextlib.contextmanager
    def in_use(self, client: Client) -> Iterator[None]:
        """While a request of this client is worked on: `make_room` does not end its connection."""
        self._in_use.add(client)
        try:
            yield
        finally:
            self._in_use.discard(client)
            if client in self._files:
                self._files[client] = self._files.pop(client)

    def end(self, client: Client) -> None:
        """End a connection at once, whatever is still to be sent."""
        if not self._shut_down(client):
            self._find()
            self._shut_down(client)

    def make_room(self) -> bool:
        """Where three quarters of `most` are open, end idle ones until half are left. Return whether that is so.

        First those of the address with the most, and of these the ones that were used least recently; none that this
        sees for the first time. So a client that opens many connections loses its own ones.
        """
        if len(os.listdir("/dev/fd")) <= self._many:  # noqa: PTH208 - numbers, not paths
            return False
        known = set(self._files)
        self._find()
        if len(self._files) <= self._many:
            return False
        of_address = Counter(address for address, _ in self._files)
        idle = (client for client in self._files if client in known and client not in self._in_use)
        for client in sorted(idle, key=lambda client: -of_address[client[0]])[: len(self._files) - self._enough]:
            self._shut_down(client)
        return True

    def _find(self) -> None:
        """List the connections. Old ones keep their order."""
        found: dict[Client, int] = {}
        for name in os.listdir("/dev/fd"):  # noqa: PTH208 - numbers, not paths
            with contextlib.suppress(OSError), _of_server(int(name)) as connection:
                if connection.getsockname()[1:2] == (self._port,):
                    found[connection.getpeername()[:2]] = int(name)
        known = [client for client in self._files if client in found]
        self._files = {**{client: found[client] for client in known}, **found}

    def _shut_down(self, client: Client) -> bool:
        """Return False where no file is known for it any more."""
        number = self._files.get(client)
        if number is None:
            return False
        with contextlib.suppress(OSError):
            duplicate = os.dup(number)  # the server may close the file, and open another one with its number
            try:
                with _of_server(duplicate) as connection:
                    if connection.getpeername()[:2] == client:
                        connection.shutdown(socket.SHUT_RDWR)
                        return True
            finally:
                os.close(duplicate)
        return False


@contextlib.contextmanager
def _of_server(number: int) -> Iterator[socket.socket]:
    """The socket that is this file; it stays open. Raises OSError where it is none."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, number)
    try:
        yield connection
    finally:
        connection.detach()
