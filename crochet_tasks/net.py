"""Addresses of this machine: what a service listens on, whether only this machine reaches it, and how it is written."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator

from crochet_tasks.errors import InvalidSetting


def listening(host: str, port: int, variable: str) -> socket.socket:
    """Return a socket that listens there. Raises InvalidSetting, which names `variable`, where that is impossible."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, UnicodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        problem = f"cannot listen on {host_port(host, port)}: {reason}"
        raise InvalidSetting(variable=variable, problem=problem) from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address; False for every name but `localhost`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def host_port(host: str, port: int) -> str:
    """Write host and port as in a URL: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def ip_address(host: str) -> str:
    """Return the IP address of a host that this machine listens on. Raises OSError where there is none."""
    return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][4][0])


def open_sockets() -> Iterator[socket.socket]:
    """Yield a duplicate of each socket that this process has open, for as long as the caller's step takes.

    For sockets that a library opened and gives no access to.
    """
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - numbers, not paths
        with contextlib.suppress(OSError):  # closed meanwhile
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as found:
                    yield found
